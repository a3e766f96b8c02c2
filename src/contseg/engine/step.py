"""Learning one step: the loop over epochs and batches."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from contseg.engine.best_epoch import BestEpoch, validation_rows, validation_scope, validation_score
from contseg.engine.devices import workers_of
from contseg.engine.job import Job, Reporter
from contseg.engine.loading import THRESHOLD_PASS, Batches, epoch_draws, evaluation_draws, updates_per_epoch
from contseg.engine.optimiser import make_optimiser
from contseg.engine.progress import Progress
from contseg.engine.randomness import METHOD, seed_model, torch_generator
from contseg.engine.ranks import ranks_of, restore_scaler, scaler_state, shard_of
from contseg.engine.run import Run
from contseg.engine.schedule import learning_rate
from contseg.engine.watch import LossWatch, PseudoLabelCount, TermWatch
from contseg.evaluation.predict import evaluate
from contseg.interruption import Interrupted, at_once, deferred, requested
from contseg.methods.method import Method, StepContext
from contseg.models.layers import resize
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch, Pool
from contseg.scenarios.step import Step


@dataclass
class _Pass:
    """A forward pass of an update: its batch as it came, and with its final labels as soon as these are known."""

    batch: Batch
    iteration: int
    generator: torch.Generator
    last: bool
    relabelled: Batch | None = None


@dataclass
class StepLearner:
    """Teaches a student one step.

    Args:
        student: grown to the step's classes.
        teacher: frozen segmenter of the step before, or None.
    """

    fabric: Fabric
    job: Job
    step: Step
    student: Segmenter
    teacher: Segmenter | None
    run: Run
    reporter: Reporter
    best: BestEpoch = field(default_factory=BestEpoch)

    def learn(self) -> float:
        """Train the student in place, from the last saved update if there is one; returns seconds spent over all attempts.

        Raises:
            Interrupted: a signal ended it; saved after the update that was being made.
        """
        self._set_up()
        epochs = self.options.epochs_of(self.step.index)
        state = self.run.load_state(self.step.index)
        begun = self._restore(state) if state else Progress(0)
        self.seconds = state["seconds"] if state else 0.0
        if not state:
            self.job.method.before_step(self.context)
        names = tuple(self.step.table.names[len(self.step.old_classes) :])
        if self._leads:
            left = (epochs - begun.epoch) * self.updates - begun.updates
            self.reporter.step_started(self.step.index, len(self.job.scenario), names, left)
            unseen = validation_scope(self.step) if self.options.keep == "best" and begun.epoch < epochs else None
            if unseen:
                self.reporter.message(f"step {self.step.index}: {unseen}")
        with deferred():
            for epoch in range(begun.epoch, epochs):
                self._learn_epoch(begun if epoch == begun.epoch else Progress(epoch), epochs)
        if self.options.keep == "best" and epochs:
            self.best.restore(self.student, self.job.method)
            if self._leads:
                self.reporter.message(self.best.told(self.step.index))
        self.job.method.after_step(self.context)
        return self.seconds

    def _learn_epoch(self, progress: Progress, epochs: int) -> None:
        """One epoch to its end, or to the update at which a signal ends it; saved in both cases."""
        started = time.perf_counter() - progress.seconds
        record = self._epoch(progress, epochs, started)
        if self.options.keep == "best":
            record |= {"validation": self._keep_best_unless_interrupted(progress, started)}
        seconds = time.perf_counter() - started
        self.seconds += seconds
        if self._leads:
            self.run.append_metrics(record | {"seconds": round(seconds, 3)})
            self.run.save_state(self.step.index, self._snapshot(progress.epoch + 1))
            self.reporter.epoch_finished(progress.epoch, epochs, record["loss"], record["images_per_second"])
        self.fabric.barrier()

    def _set_up(self) -> None:
        job, fabric = self.job, self.fabric
        memory = job.scenario.options.memory
        self.options = job.training
        # exemplars either join the images that are drawn from, or take the places of some in every batch
        self.drawn = Pool((self.step.train, *self.step.memory))
        self.last_loss = math.nan
        self._told: Tensor | None = None
        self.share = memory.share if memory and memory.mix == "share" else 0.0
        self.updates = updates_per_epoch(len(self.step.train if self.share else self.drawn), job.training)
        self._leads = fabric.global_rank == 0
        self.terms = TermWatch(job.method, self.step.index, self.reporter.message if self._leads else lambda text: None)
        self.layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        job.method.prepare(self.student, self.step)
        self.taps = job.method.taps if self.teacher is not None else job.method.first_taps
        self.student.freeze_unused(self.taps)
        self.student.to(memory_format=self.layout)  # type: ignore[call-overload]
        if self.teacher is not None:
            self.teacher.to(fabric.device, memory_format=self.layout).eval().requires_grad_(False)  # type: ignore[call-overload]
        if self.options.compile:
            self.student.compile()
        groups = job.method.parameter_groups(self.student, self.step)
        optimiser = make_optimiser(groups, self.student, self.options, self.step.index)
        self.module, self.optimiser = fabric.setup(self.student, optimiser)
        self.context = StepContext(
            student=self.student,
            teacher=self.teacher,
            step=self.step,
            epochs=self.options.epochs_of(self.step.index),
            loader=self._batches(Pool((self.step.train,)), THRESHOLD_PASS),
            ranks=ranks_of(fabric),
            predict_teacher=self._ask_teacher if self.teacher is not None else None,
            average=self.options.average,
            passes=self.options.accumulate,
        )

    def _batches(self, pool: Pool, epoch: int, done: int = 0) -> Batches:
        """The batches of an epoch, without the first ones that were learned already."""
        step = self.step.index
        own = len(self.step.train) if self.share else len(pool)
        return Batches(
            pool,
            self.job.training_pipeline,
            epoch_draws(own, self.options, step, epoch, shard_of(self.fabric), len(pool) - own, self.share)[done:],
            seed=self.options.seed,
            step=step,
            device=self.fabric.device,
            workers=workers_of(self.options),
        )

    def _epoch(self, progress: Progress, epochs: int, started: float) -> dict[str, Any]:
        """The updates of an epoch that are still to come; returns its line for metrics.jsonl.

        Args:
            started: when it began, on the clock of `time.perf_counter`.
        """
        self.module.train()
        epoch, sums, passes = progress.epoch, progress.sums, self.options.accumulate
        self.context.epoch = epoch
        total, rate = epochs * self.updates, self.options.lr_of(self.step.index)
        key = "training.lr_later" if self.step.index else "training.lr"
        watch = LossWatch(self.step.index, epoch, (key, rate), self.last_loss)
        self.pseudo = PseudoLabelCount.of(self.job.method, self.step, self.teacher, self.fabric.device, progress.pseudo)
        batches = iter(self._batches(self.drawn, epoch, progress.updates * passes))
        for number in range(progress.updates, self.updates):
            update = epoch * self.updates + number
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(self.options, self.step.index, update, total, group["lr_factor"])
            for one in self._passes(batches, update):
                terms = self._forward_backward(one)
                watch.see(terms, one.batch, one.iteration)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.detach()
            self._update()
            progress.updates = number + 1
            if math.isnan(watch.last):  # the first update of the step: nothing came before it that could be shown
                watch.flush()
            if self._leads:
                self.reporter.updated(epoch, epochs, watch.last, self.options.batch * passes)
            signal = self._signal()
            if signal:
                watch.flush()
                batches.close()  # ends the readers
                self._save_within(progress, started)
                raise Interrupted(signal)
        watch.flush()
        self.last_loss = watch.last
        count = self.updates * passes
        means = {
            name: float(self.context.ranks.sum(value)) / count / self.context.ranks.count for name, value in sums.items()
        }
        pseudo = self.pseudo.shares(self.context.ranks) if self.pseudo else {}
        elapsed = time.perf_counter() - started
        return {
            "kind": "epoch",
            "step": self.step.index,
            "epoch": epoch,
            "loss": sum(means.values()),
            "terms": means,
            "lr": self.optimiser.param_groups[0]["lr"],
            "images_per_second": round(count * self.options.batch / elapsed, 1),
            **({"pseudo": pseudo} if pseudo else {}),
        }

    def _passes(self, batches: Iterator[Batch], update: int) -> list[_Pass]:
        """The passes of an update.

        Means over valid pixels are taken over all of them, so that their final labels are known before the first is done;
        a method that takes no such mean has each relabelled in its turn.
        """
        count, options = self.options.accumulate, self.options
        passes: list[_Pass] = []
        for iteration in range(update * count, (update + 1) * count):
            generator = torch_generator(METHOD, options.seed, self.step.index, iteration)
            passes.append(_Pass(next(batches), iteration, generator, iteration == (update + 1) * count - 1))

        def final_labels() -> list[Tensor]:
            return [self._relabelled(one).labels for one in passes]

        self.context.labels_of_update = final_labels if count > 1 else None
        return passes

    def _relabelled(self, one: _Pass, asked: SegmenterOutput | None = None) -> Batch:
        """The batch of a pass with its final labels, made once.

        Args:
            asked: the teacher's output; computed again where labels are needed before their turn.
        """
        if one.relabelled is None:
            method, context = self.job.method, self.context
            if asked is None and self.teacher is not None and type(method).relabel is not Method.relabel:
                asked = self._ask_teacher(one.batch)
            outer, context.generator = context.generator, one.generator
            one.relabelled = method.relabel(one.batch, asked, context)
            context.generator = outer
        return one.relabelled

    def _forward_backward(self, one: _Pass) -> dict[str, Tensor]:
        """Student and teacher forward, the method's terms, backward; returns the terms."""
        method, context, batch = self.job.method, self.context, one.batch
        seed_model(self.options.seed, self.step.index, one.iteration, self.fabric.global_rank)
        context.generator = one.generator
        asked = self._ask_teacher(batch) if self.teacher is not None else None
        with self.fabric.no_backward_sync(self.module, enabled=not one.last):
            output = self.module(self._inputs(batch), taps=self.taps)
            given = batch.labels
            batch = self._relabelled(one, asked)
            if self.pseudo:
                self.pseudo.see(given, batch.labels)
            terms = dict(method.losses(batch, output, asked, context))
            for name, logits, weight in output.auxiliary:
                terms[f"auxiliary_{name}"] = weight * method.supervise(resize(logits, batch.size), batch, context)
            self.terms.see(terms)
            self.fabric.backward(torch.stack(list(terms.values())).sum() / self.options.accumulate)
        with self.fabric.autocast():
            self.student.observe(output, batch.labels, context.ranks, context.generator)
        return terms

    def _inputs(self, batch: Batch) -> Tensor:
        return self.student.normalise(batch.images).contiguous(memory_format=self.layout)

    @torch.no_grad()
    def _ask_teacher(self, batch: Batch) -> SegmenterOutput:
        """The teacher's answer; `no_grad`, because inference tensors cannot be saved for backward."""
        assert self.teacher is not None
        with self.fabric.autocast():
            return self.teacher(self._inputs(batch), taps=self.job.method.taps)

    def _update(self) -> None:
        changed, limit = type(self.job.method).after_backward is not Method.after_backward, self.options.clip
        if changed or limit is not None:
            # unscales fp16 gradients; the limit itself never binds
            self.fabric.clip_gradients(self.module, self.optimiser, max_norm=math.inf, error_if_nonfinite=False)
        if changed:
            self.job.method.after_backward(self.context)
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), limit)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.job.method.after_update(self.context)

    def _signal(self) -> int:
        """The signal that ends the run after this update, on whichever rank it came; 0 if none did.

        Several ranks must end at the same update. They learn of it one update late, when the device has long gathered it,
        so that looking costs no waiting.
        """
        number, ranks = requested() or 0, self.context.ranks
        if ranks.count == 1:
            return number
        before, self._told = self._told, ranks.gather(torch.tensor([number], device=self.fabric.device)).amax()
        return 0 if before is None else int(before)

    def _keep_best_unless_interrupted(self, progress: Progress, started: float) -> float | None:
        """`_keep_best`. An evaluation may take long: one process alone ends it at once, and repeats it at the resume."""
        if self.context.ranks.count > 1:
            return self._keep_best(progress.epoch)
        try:
            with at_once():
                return self._keep_best(progress.epoch)
        except Interrupted:
            self._save_within(progress, started)
            raise

    def _save_within(self, progress: Progress, started: float) -> None:
        """Save the state in the middle of an epoch."""
        progress.seconds = time.perf_counter() - started
        progress.pseudo = self.pseudo.counts if self.pseudo else None
        within = progress.saved(self.context.ranks)
        if self._leads:
            self.run.save_state(self.step.index, self._snapshot(progress.epoch) | {"within": within})
        self.fabric.barrier()

    def _keep_best(self, epoch: int) -> float | None:
        """Measure an epoch on held-out images, and remember it if it is the best; returns its score."""
        draws = evaluation_draws(len(self.step.val), self.options.batch, self.job.evaluation_pipeline, shard_of(self.fabric))
        batches = Batches(
            self.step.val,
            self.job.evaluation_pipeline,
            draws,
            seed=0,
            step=self.step.index,
            device=self.fabric.device,
        )
        asked = replace(self.job.inference_at(self.step), options=self.job.inference.single())
        counts = self.context.ranks.sum(evaluate(self.student, batches, validation_rows(self.step), inference=asked))
        score = validation_score(counts.cpu().numpy(), self.step)
        self.best.offer(epoch, score, self.student, self.job.method)
        return score

    def _snapshot(self, epochs_done: int) -> dict[str, Any]:
        return {
            "finished": False,
            "epochs_done": epochs_done,
            "seconds": self.seconds,
            "model": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "method": self.job.method.state_dict(),
            "scaler": scaler_state(self.fabric),
            "best": self.best.kept,
        }

    def _restore(self, state: dict[str, Any]) -> Progress:
        self.student.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.job.method.load_state_dict(state["method"])
        self.best = BestEpoch(state["best"])
        restore_scaler(self.fabric, state["scaler"])
        return Progress.of(state["epochs_done"], state.get("within"), self.context.ranks, self.fabric.device)

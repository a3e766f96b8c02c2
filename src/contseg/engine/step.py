"""Learning one step: the loop over epochs and batches."""

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from contseg.engine.best_epoch import BestEpoch, validation_rows, validation_scope, validation_score
from contseg.engine.job import Job, Reporter
from contseg.engine.loading import THRESHOLD_PASS, Batches, epoch_draws, evaluation_draws, updates_per_epoch
from contseg.engine.optimiser import make_optimiser
from contseg.engine.randomness import METHOD, seed_model, torch_generator
from contseg.engine.ranks import grad_scaler_of, ranks_of, shard_of
from contseg.engine.run import Run
from contseg.engine.schedule import learning_rate
from contseg.engine.watch import LossWatch, PseudoLabelCount, TermWatch
from contseg.evaluation.predict import evaluate
from contseg.methods.method import Method, StepContext
from contseg.models.layers import resize
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch, Pool
from contseg.scenarios.step import Step


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
        """Train the student in place, from the last saved epoch if there is one; returns seconds spent over all attempts."""
        self._set_up()
        options, epochs = self.options, self.options.epochs_of(self.step.index)
        state = self.run.load_state(self.step.index)
        first = self._restore(state) if state else 0
        seconds = state["seconds"] if state else 0.0
        if not state:
            self.job.method.before_step(self.context)
        names = tuple(self.step.table.names[len(self.step.old_classes) :])
        if self._leads:
            left = (epochs - first) * self.updates
            self.reporter.step_started(self.step.index, len(self.job.scenario), names, left)
            unseen = validation_scope(self.step) if options.keep == "best" and first < epochs else None
            if unseen:
                self.reporter.message(f"step {self.step.index}: {unseen}")
        for epoch in range(first, epochs):
            started = time.perf_counter()
            record = self._epoch(epoch, epochs)
            if options.keep == "best":
                record |= {"validation": self._keep_best(epoch)}
            seconds += time.perf_counter() - started
            if self._leads:
                self.run.append_metrics(record | {"seconds": round(time.perf_counter() - started, 3)})
                self.run.save_state(self.step.index, self._snapshot(epoch + 1, seconds))
            self.fabric.barrier()
        if options.keep == "best" and epochs:
            self.best.restore(self.student, self.job.method)
            if self._leads:
                self.reporter.message(self.best.told(self.step.index))
        self.job.method.after_step(self.context)
        return seconds

    def _set_up(self) -> None:
        job, fabric = self.job, self.fabric
        memory = job.scenario.options.memory
        self.options = job.training
        # exemplars either join the images that are drawn from, or take the places of some in every batch
        self.drawn = Pool((self.step.train, *self.step.memory))
        self.share = memory.share if memory and memory.mix == "share" else 0.0
        self.updates = updates_per_epoch(len(self.step.train if self.share else self.drawn), job.training)
        self._leads = fabric.global_rank == 0
        self.terms = TermWatch(job.method, self.step.index, self.reporter.message if self._leads else lambda text: None)
        self.layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        job.method.prepare(self.student, self.step)
        self.taps = job.method.taps if self.teacher is not None else job.method.first_taps
        self.student.rest(self.taps)
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
        )

    def _batches(self, pool: Pool, epoch: int) -> Batches:
        step = self.step.index
        own = len(self.step.train) if self.share else len(pool)
        return Batches(
            pool,
            self.job.training_pipeline,
            epoch_draws(own, self.options, step, epoch, shard_of(self.fabric), len(pool) - own, self.share),
            seed=self.options.seed,
            step=step,
            device=self.fabric.device,
            workers=self.options.workers,
        )

    def _epoch(self, epoch: int, epochs: int) -> dict[str, Any]:
        """One epoch; returns its line for metrics.jsonl."""
        self.module.train()
        self.context.epoch = epoch
        rate = self.options.lr_of(self.step.index)
        total, sums, started = epochs * self.updates, {}, time.perf_counter()  # type: ignore[var-annotated]
        watch = LossWatch(self.step.index, epoch, ("training.lr_later" if self.step.index else "training.lr", rate))
        self.pseudo = PseudoLabelCount.of(self.job.method, self.step, self.teacher, self.fabric.device)
        batches = iter(self._batches(self.drawn, epoch))
        for number in range(self.updates):
            update = epoch * self.updates + number
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(self.options, self.step.index, update, total, group["lr_factor"])
            for part in range(self.options.accumulate):
                batch = next(batches)
                iteration = update * self.options.accumulate + part
                terms = self._forward_backward(batch, iteration, part == self.options.accumulate - 1)
                watch.see(terms, batch, iteration)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.detach()
            self._update()
            if self._leads:
                self.reporter.updated(epoch, epochs, watch.last, self.options.batch * self.options.accumulate)
        watch.flush()
        passes = self.updates * self.options.accumulate
        means = {
            name: float(self.context.ranks.sum(value)) / passes / self.context.ranks.count for name, value in sums.items()
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
            "images_per_second": round(passes * self.options.batch / elapsed, 1),
            **({"pseudo": pseudo} if pseudo else {}),
        }

    def _forward_backward(self, batch: Batch, iteration: int, last: bool) -> dict[str, Tensor]:
        """Student and teacher forward, the method's terms, backward; returns the terms."""
        method, context = self.job.method, self.context
        step = self.step.index
        seed_model(self.options.seed, step, iteration, self.fabric.global_rank)
        context.generator = torch_generator(METHOD, self.options.seed, step, iteration)
        asked = self._ask_teacher(batch) if self.teacher is not None else None
        with self.fabric.no_backward_sync(self.module, enabled=not last):
            output = self.module(self._inputs(batch), taps=self.taps)
            given = batch.labels
            batch = method.relabel(batch, asked, context)
            if self.pseudo:
                self.pseudo.see(given, batch.labels)
            terms = dict(method.losses(batch, output, asked, context))
            for name, logits, weight in output.auxiliary:
                terms[f"auxiliary_{name}"] = weight * method.supervise(resize(logits, batch.size), batch, context)
            self.terms.see(terms)
            self.fabric.backward(torch.stack(list(terms.values())).sum() / self.options.accumulate)
        with self.fabric.autocast():
            self.student.observe(output, batch.labels, context)
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

    def _snapshot(self, epochs_done: int, seconds: float) -> dict[str, Any]:
        scaler = grad_scaler_of(self.fabric)
        return {
            "finished": False,
            "epochs_done": epochs_done,
            "seconds": seconds,
            "model": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "method": self.job.method.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "best": self.best.kept,
        }

    def _restore(self, state: dict[str, Any]) -> int:
        self.student.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.job.method.load_state_dict(state["method"])
        self.best = BestEpoch(state["best"])
        scaler = grad_scaler_of(self.fabric)
        if scaler and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        return state["epochs_done"]

"""One update of a student: forward passes, the method's terms, backward, and the optimiser's step."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from contseg.engine.draws import DrawsOfUpdate
from contseg.engine.loading import THRESHOLD_PASS, StepBatches, evaluation_batches
from contseg.engine.optimiser import make_optimiser
from contseg.engine.randomness import METHOD, seed_model, torch_generator
from contseg.engine.remembered import remembered
from contseg.engine.schedule import learning_rate
from contseg.engine.session import Session
from contseg.engine.watch import LossWatch, PseudoLabelCount, TermWatch
from contseg.methods.mask_relabelling import painted
from contseg.methods.method import KeepFeatures, Method, StepContext
from contseg.models.from_features import FromFeatures
from contseg.models.recomputation import recomputed
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import with_targets
from contseg.scenarios.step import Step


@dataclass
class _Pass:
    """A forward pass of an update: its batch, and the same batch with its final labels once they are known."""

    batch: Batch
    iteration: int
    generator: torch.Generator
    last: bool
    relabelled: Batch | None = None


class Updater:
    """Prepares a student for a step and makes its updates.

    Args:
        student: already grown to the classes of the step.
        previous: the segmenter of the step before, or None. It is frozen if the method needs a teacher.

    Attributes:
        context: what the method receives.
        optimiser: of the step.
        pseudo: counts of pseudo labels in the current epoch, or None if nothing is relabelled.
    """

    def __init__(self, session: Session, step: Step, student: Segmenter, previous: Segmenter | None, batches: StepBatches):
        fabric, method, options = session.fabric, session.job.method, session.job.training
        teacher = previous if method.needs_teacher else None
        self.fabric, self.method, self.options = fabric, method, options
        self.step, self.student, self.teacher = step, student, teacher
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format
        method.prepare(student, step)
        self.taps = method.taps if teacher is not None else method.first_taps
        student.freeze_unused(self.taps)
        student.to(memory_format=self.layout)  # type: ignore[call-overload]
        if teacher is not None:
            teacher.to(fabric.device, memory_format=self.layout).eval().requires_grad_(False)  # type: ignore[call-overload]
        if options.compile:
            student.compile()
            if teacher is not None:  # it is already if this process trained it, but not after a resume
                teacher.compile()
        optimiser = make_optimiser(method.parameter_groups(student, step), student, options, step.index)
        self.module, self.optimiser = fabric.setup(student, optimiser)
        self._every_sample = evaluation_batches(
            step.train, session.job.evaluation_pipeline, options, fabric.device, session.shard, stay=True
        )
        self.context = StepContext(
            student=student,
            teacher=teacher,
            step=step,
            epochs=options.epochs_of(step.index),
            loader=batches.own_images(THRESHOLD_PASS),
            every_sample=self._every_sample,
            ranks=session.ranks,
            predict_teacher=self._teacher_output if teacher is not None else None,
            predict_student=self._look,
            average=options.average,
            passes=options.accumulate,
            keep_features=None if options.features == "live" else self._remembered(session),
            updates=batches.updates,
            previous=previous,
        )
        self.terms = TermWatch(method, step.index, session.reporter.message)
        self.losses = LossWatch(step.index, options)
        self.pseudo: PseudoLabelCount | None = None

    def _remembered(self, session: Session) -> KeepFeatures:
        path = session.run.feature_folder(self.step.index) / f"every_sample.{session.shard.rank}.bin"
        return partial(remembered, path=path, half=self.options.features == "cached-bf16")

    @property
    def loss(self) -> float:
        """The loss of the newest pass."""
        return self.losses.last

    def close(self) -> None:
        """End the workers that read for the method."""
        self._every_sample.close()

    def begin_epoch(self, epoch: int, pseudo: Tensor | None) -> None:
        """Enter training mode.

        Args:
            pseudo: `PseudoLabelCount.counts` of an interrupted attempt.
        """
        self.module.train()
        self.context.epoch, self.context.left_out = epoch, 0
        self.pseudo = PseudoLabelCount.of(self.method, self.step, self.teacher, self.fabric.device, pseudo)

    def update(self, batches: Iterator[Batch], number: int, updates: int) -> list[dict[str, Tensor]]:
        """Update the weights once.

        Args:
            batches: iterator over batches, one per pass.
            number: of this update in the step, 0-based.
            updates: in the step.

        Returns:
            the terms of each pass, detached.

        Raises:
            ContsegError: a loss is not finite (the weights are not changed), or a term does not fit `inert_terms`.
        """
        for group in self.optimiser.param_groups:
            late = group.get("late", False)
            group["lr"] = learning_rate(self.options, self.step.index, number, updates, group["lr_factor"], late)
        self.student.anneal(self.step.index, number, updates)
        terms = [self._forward_backward(one) for one in self._passes(batches, number)]
        self._apply_gradients()
        self.student.anneal(self.step.index, number + 1, updates)
        return terms

    def _passes(self, batches: Iterator[Batch], update: int) -> list[_Pass]:
        """The passes of an update.

        All batches are read first, because means over valid pixels cover all passes and need their final labels from the
        first pass on. Methods without such a mean relabel each batch in its own pass.
        """
        count, options = self.options.accumulate, self.options
        passes: list[_Pass] = []
        for iteration in range(update * count, (update + 1) * count):
            generator = torch_generator(METHOD, options.seed, self.step.index, iteration)
            batch = next(batches)
            if batch.held is not None:
                laid_out = batch.held.each(lambda value: value.contiguous(memory_format=self.layout))
                batch = replace(batch, held=laid_out)
            passes.append(_Pass(batch, iteration, generator, iteration == (update + 1) * count - 1))

        def final() -> list[Batch]:
            return [self._relabelled(one) for one in passes]

        self.context.batches_of_update = final if count > 1 else None
        self.context.labels_of_update = (lambda: [batch.labels for batch in final()]) if count > 1 else None
        self.context.update_seed = torch_generator(METHOD, options.seed, self.step.index, update).initial_seed()
        return passes

    def _relabelled(self, one: _Pass, teacher_output: SegmenterOutput | None = None) -> Batch:
        """The batch of a pass with its final labels, computed once.

        Args:
            teacher_output: computed here if None and needed, when labels are used before their pass.
        """
        if one.relabelled is None:
            method, context = self.method, self.context
            if teacher_output is None and self.teacher is not None and type(method).relabel is not Method.relabel:
                teacher_output = self._teacher_output(one.batch)
            outer, context.generator = context.generator, one.generator
            relabelled = method.relabel(one.batch, teacher_output, context)
            one.relabelled = with_targets(relabelled) if self.student.options.masks else relabelled
            context.generator = outer
        return one.relabelled

    def _forward_backward(self, one: _Pass) -> dict[str, Tensor]:
        """Student and teacher forward, the method's terms, backward; returns the terms, detached."""
        method, context, batch = self.method, self.context, one.batch
        context.generator, context.pass_number = one.generator, one.iteration % self.options.accumulate
        teacher_output = self._teacher_output(batch) if self.teacher is not None else None
        with self.fabric.no_backward_sync(self.module, enabled=not one.last):
            with self._draws(one), self._memory(one):
                output = self._student_output(batch)
            labels_before = batch.labels
            batch = self._relabelled(one, teacher_output)
            if self.pseudo:
                self.pseudo.count(labels_before, painted(batch))
            terms = dict(method.losses(batch, output, teacher_output, context))
            for extra in output.auxiliary:
                terms[f"auxiliary_{extra.name}"] = extra.weight * method.supervise(extra, batch, context)
            self.terms.check(terms)
            self.losses.read(terms)
            self.fabric.backward(torch.stack(list(terms.values())).sum() / self.options.accumulate)
        self.losses.require_finite(context.epoch, one.iteration, batch.names)
        with self.fabric.autocast():
            self.student.observe(output, batch.labels, context.ranks, context.generator)
        return {name: value.detach() for name, value in terms.items()}

    def _draws(self, one: _Pass) -> AbstractContextManager[object]:
        """Seed the draws of the student; they follow the samples of the update, unless the student is compiled."""
        seed, step, passes = self.options.seed, self.step.index, self.options.accumulate
        if self.options.compile:
            seed_model(seed, step, one.iteration, self.fabric.global_rank)
            return nullcontext()
        seed_model(seed, step, one.iteration // passes, 0)
        return self._draws_of_update(one)

    def _draws_of_update(self, one: _Pass) -> AbstractContextManager[object]:
        """The draws of a pass are its part of those of the update, from the generators as they are."""
        passes, ranks = self.options.accumulate, self.context.ranks
        number = one.iteration % passes
        if passes * ranks.count == 1:
            return nullcontext()
        return DrawsOfUpdate(len(one.batch.images), number * ranks.count + ranks.rank, passes * ranks.count)

    def _memory(self, one: _Pass) -> AbstractContextManager[object]:
        """What the forward pass of the student keeps for backward."""
        if self.options.memory == "full":
            return nullcontext()
        return recomputed(self.student.backbone, partial(self._draws_of_update, one))

    def inputs(self, batch: Batch) -> Tensor:
        """The normalised images of a batch, in the memory layout of the networks."""
        return self.student.normalise(batch.images).contiguous(memory_format=self.layout)

    def _student_output(self, batch: Batch) -> SegmenterOutput:
        """From the images, or from the features that were computed before."""
        if batch.held is None:
            return self.module(self.inputs(batch), taps=self.taps)
        return self.module(None, taps=self.taps, start=FromFeatures(batch.held.student, batch.size))

    @torch.no_grad()
    def _teacher_output(self, batch: Batch) -> SegmenterOutput:
        """Under `no_grad`, as inference tensors cannot be saved for backward."""
        assert self.teacher is not None
        if batch.held is not None:
            known = batch.held.teacher
            return SegmenterOutput(known["logits"], {tap: known[tap] for tap in self.method.taps})
        with self.fabric.autocast():
            return self.teacher(self.inputs(batch), taps=self.method.taps)

    def _look(self, batch: Batch, taps: Sequence[str]) -> SegmenterOutput:
        """The plain student on a batch of `context.every_sample` or `context.loader`."""
        with self.fabric.autocast():
            return self.student(self.inputs(batch), taps=taps)

    def _apply_gradients(self) -> None:
        """The optimiser's step, with the method's calls before and after it."""
        changed, limit = type(self.method).after_backward is not Method.after_backward, self.options.clip
        if changed or limit is not None:
            # unscales fp16 gradients; an infinite limit never clips
            self.fabric.clip_gradients(self.module, self.optimiser, max_norm=math.inf, error_if_nonfinite=False)
        if changed:
            self.method.after_backward(self.context)
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), limit)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.method.after_update(self.context)

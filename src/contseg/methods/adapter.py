"""Adapter: adaptive prototypes and an uncertainty-aware constraint (AAAI 2025), on STAR."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.losses.confidence import top_two
from contseg.losses.replay import sampled
from contseg.losses.uncertainty import uncertainty
from contseg.methods.feature_statistics import ClassSums, ReplaySizes
from contseg.methods.method import StepContext
from contseg.methods.star import STAR
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Several, Share, Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class Adapter(STAR):
    """STAR whose stored prototypes follow the features, with a loss on unsure pixels.

    The prototypes of old classes were stored for features that have changed since. Every few epochs, student and teacher are
    compared where both predict the same old class with confidence, and prototypes move by the mean difference of their
    directions.

    Published training stops early on the images that it is tested on; here it does not. `training.keep=best` chooses an
    epoch on held-out training images.

    Args:
        uncertainty: weight of the loss on unsure pixels; 0 omits it.
        sure: score (or margin of the best score) above which a pixel is sure.
        compensation: whether prototypes move.
        interval: epochs between two movements; the last epoch of a step has one too.
        every_class: replay at least one feature of each class, and weigh background by the sizes of VOC; otherwise as STAR
            does (ADE20K).
    """

    uncertainty: Weight = 0.1
    sure: Share = 0.7
    compensation: bool = True
    interval: Several = 10
    every_class: bool = True

    name = "adapter"

    statistics: ClassVar[tuple[str, ...]] = (*STAR.statistics, "current")
    epsilon = 1e-4
    largest: ClassVar[float] = 1.0
    """The largest share of a prototype's movement."""

    def sizes(self, predicted: Tensor, added: float, context: StepContext) -> ReplaySizes:
        """Those of STAR on ADE20K; otherwise see `sizes_of_every_class`."""
        if not self.every_class:
            return super().sizes(predicted, added, context)
        numbers, step = self.state["numbers"].cpu(), context.step
        return sizes_of_every_class(numbers, predicted, added, step.new_count, context.updates, self.setting == "disjoint")

    def before_step(self, context: StepContext) -> None:
        """As STAR; and keep the statistics with which the step begins."""
        super().before_step(context)
        if context.step.old_count:
            self.state.update(first_prototypes=self.state["prototypes"], first_noise=self.state["noise"])

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """The terms of STAR + the loss on unsure pixels."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is not None and self.uncertainty:
            loss = uncertainty(student.logits_at(batch.size)[:, 1:], batch.labels, self.sure)
            valid = loss.where(batch.labels != IGNORE, 0.0)
            mean = loss.mean() if self.void_is_negative else context.mean_over_valid(valid, batch.labels)
            terms["uncertainty"] = self.uncertainty * mean
        return terms

    def after_epoch(self, context: StepContext) -> None:
        """Move the prototypes, every few epochs and after the last one of a later step."""
        done = context.epoch + 1
        if self.compensation and context.step.old_count and (done % self.interval == 0 or done == context.epochs):
            self.compensate(context)

    @torch.no_grad()
    def compensate(self, context: StepContext) -> None:
        """Move prototypes from where they were at the start of the step, and widen their deviations by as much."""
        assert context.predict_teacher is not None
        count = context.step.old_count - 1
        now, then = ClassSums(1, count), ClassSums(1, count)
        for batch, student in context.look(("head",)):
            teacher = context.predict_teacher(batch)
            features = student.features["head"]
            size = (features.shape[2], features.shape[3])
            known, seen = (self.decision(one, batch) for one in (teacher, student))
            certain = (known == seen) & (batch.labels == 0)
            for one in (teacher, student):
                certain &= top_two(one.logits_at(batch.size)[:, 1:].sigmoid())[2] > self.sure
            labels = sampled(known.where(certain, 0), size)
            now.add(features, labels)
            then.add(teacher.features["head"], labels)
        now, then = now.gathered(context.ranks), then.gathered(context.ranks)
        self.move(now, then)

    def move(self, now: ClassSums, then: ClassSums) -> None:
        """Move the prototypes: p + r (u - u'), with r the share of a class's positions that are sure.

        Args:
            now, then: sums of the student's and of the teacher's directions in sure positions of old classes.
        """
        prototypes, noise = self.state["first_prototypes"], self.state["first_noise"]
        positions = self.state["current"][1:].to(now.numbers)
        share = (now.numbers / positions.clamp(min=1)).clamp(max=self.largest)
        moved = (share[:, None] * (now.prototypes - then.prototypes)).to(prototypes)
        self.state.update(prototypes=prototypes + moved, noise=noise + moved.abs())

    def store(self, sums: ClassSums, numbers: Tensor, context: StepContext) -> None:
        """As STAR; and the positions of each class in the step that learned it, which never change."""
        super().store(sums, numbers, context)
        before = self.state["current"].cpu() if context.step.old_count else numbers.cpu()
        self.state["current"] = torch.cat([before, sums.numbers.cpu()])


def sizes_of_every_class(
    numbers: Tensor, predicted: Tensor, added: float, new: int, updates: int, disjoint: bool
) -> ReplaySizes:
    """The sizes of Adapter on VOC, which replay every class.

    Args:
        numbers, predicted, new, updates: as of `replay_sizes`.
        added: positions of the new classes.
        disjoint: whether the setting is `disjoint`.

    Example:
        >>> sizes_of_every_class(torch.tensor([99.0, 40.0]), torch.tensor([50.0, 40.0]), 10.0, 1, 10, False).counts
        tensor([1])
    """
    unlabelled = max(float(predicted[0]), 1e-12)
    if disjoint:
        counts, background, rho = numbers[1:], float(numbers[0]), float(numbers[0]) / unlabelled
    else:
        counts, background = numbers[1:] - predicted[1:], float(numbers[0]) * (1 - 0.01 * new)
        shares = (predicted[1:] / numbers[1:]).where(numbers[1:] > 0, 0.0)
        rho = max(0.0, (background - min(float(shares.max()), 1.0) * added) / unlabelled)
    stored = torch.cat([predicted[:1] + background, numbers[1:]])
    return ReplaySizes((counts / updates).long().clamp(min=1), rho, stored)

"""REMINDER: Class Similarity Weighted Knowledge Distillation (Phan et al., CVPR 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.losses.similarity import similarity_distillation, similarity_weights, upsampled_sums
from contseg.methods.method import StepContext
from contseg.methods.plop import PLOP
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Factor, Weight
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class REMINDER(PLOP):
    """PLOP + distillation of the outputs in pixels of new classes, in which similar old classes count more.

    Of each class the mean feature is stored after its step, over all its pixels; old ones stay as they are, although the
    features move. Two classes resemble each other by the cosine of their mean features: that of the batch for a new class,
    the stored one for an old class or background.

    Args:
        similarity: weight of the distillation.
        delta: old classes with a similarity below delta / number of old classes are left out (0 VOC, 1 ADE20K).
        temperature: of the distillation.
    """

    similarity: Weight = 0.5
    delta: Weight = 0.0
    temperature: Factor = 3.0

    name = "reminder"
    first_step_is_plain = True
    whole_batch_terms = ("similarity",)

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """As PLOP; every later step must add classes."""
        super().check(network, steps)
        for step in steps[1:]:
            if not step.new_count:
                raise ContsegError(
                    f"method.name: '{self.name}' compares new classes with old ones, and step {step.index} adds none; use"
                    " plop"
                )

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Use the mean features that a run with this method stored."""
        if "prototypes" in statistics and "classes" in statistics:
            self.state.update({name: statistics[name] for name in ("prototypes", "classes")})

    def before_step(self, context: StepContext) -> None:
        """The thresholds of PLOP; each old class must have a mean feature.

        Raises:
            ContsegError: mean features are missing, or are of other classes.
        """
        step = context.step
        if not step.old_count:
            self.state.clear()
        else:
            self._require_prototypes(step)
        super().before_step(context)

    def _require_prototypes(self, step: Step) -> None:
        found = self.state.get("classes")
        if found is None:
            raise ContsegError(
                f"method {self.name}: no mean features of the old classes are stored, so new classes cannot be compared"
                f" with them at step {step.index}; start from a run of {self.name}, or give step 0 its images"
            )
        if tuple(found.tolist()) != step.old_classes:
            raise ContsegError(
                f"method {self.name}: the mean features are of the classes {found.tolist()} (ids in their order), and step"
                f" {step.index} continues {list(step.old_classes)}; start from a run with these classes"
            )

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Terms of PLOP + distillation weighted by similarity (eq. 6)."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is None or not self.similarity:
            return terms
        ranks, step = context.ranks, context.step
        sums, counts = map(
            ranks.sum,
            upsampled_sums(student.features["head"].detach(), batch.labels, step.old_count, step.new_count),
        )
        weights = similarity_weights(means(sums, counts), self.state["prototypes"].to(sums), self.delta)
        ours, theirs = student.logits_at(batch.size), teacher.logits_at(batch.size)
        total, pixels = similarity_distillation(ours, theirs, batch.labels, weights, self.temperature)
        pixels = ranks.sum(pixels).clamp(min=1) / ranks.count  # theirs is not a number if there are none
        return terms | {"similarity": self.similarity * total / pixels}

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Store the mean features of the new classes, and of background after step 0, from one pass."""
        step = context.step
        new = self.mean_features(context, step.old_count, step.new_count).to("cpu", context.student.mean.dtype)
        old = [self.state["prototypes"].cpu()] if step.old_count else []
        self.state.update(prototypes=torch.cat([*old, new]), classes=torch.tensor(step.seen_classes))

    def mean_features(self, context: StepContext, first: int, count: int) -> Tensor:
        """Mean feature of each new class, (K, D); 0 for a class without pixels."""
        sums: Any = 0.0
        counts: Any = 0
        for batch, output in context.look(("head",)):
            added, pixels = upsampled_sums(output.features["head"], batch.labels, first, count)
            sums, counts = sums + added.double(), counts + pixels
        return means(context.ranks.sum(sums), context.ranks.sum(counts))


def means(sums_KD: Tensor, counts_K: Tensor) -> Tensor:
    """Means of the features of classes, (K, D); 0 for a class without pixels."""
    return sums_KD / counts_K.clamp(min=1)[:, None].to(sums_KD.dtype)

"""Modeling the Background (Cermelli et al., CVPR 2020)."""

from dataclasses import dataclass

from torch import Tensor

from contseg.losses.cross_entropy import cross_entropy, unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class MiB(Method):
    """Unbiased cross-entropy + unbiased distillation; new classifiers start from the background.

    Background changes its meaning from step to step: to the annotator of a step it includes the old classes (so the
    student may call such a pixel old), to the teacher it includes the new ones (so the student may call it new).

    Args:
        distillation: weight of the distillation term: 10, and 100 in some published 15-1 and 10-1 runs.
    """

    distillation: float = 10.0

    name = "mib"
    first_step_is_plain = True
    needs_teacher = True
    new_classes_start_from = "background"

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Cross-entropy where nothing is old or nothing new, unbiased cross-entropy (eq. 5) after; mean over all pixels."""
        if context.step.old_count == 0 or context.step.new_count == 0:
            return cross_entropy(logits_BKHW, batch.labels).mean()
        return unbiased_cross_entropy(logits_BKHW, batch.labels, context.step.old_count, batch.annotated).mean()

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Eq. 4: supervised term + distillation."""
        logits = student.logits_at(batch.size)
        terms = {"cross_entropy": self.supervise(logits, batch, context)}
        if teacher is not None:
            kept = unbiased_distillation(logits, teacher.logits_at(batch.size))
            terms["distillation"] = self.distillation * kept.mean()
        return terms

"""MiB: Modeling the Background (Cermelli et al., CVPR 2020)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from contseg.losses.cross_entropy import cross_entropy, unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.losses.unbiased import shared_unbiased_terms, unbiased_terms
from contseg.methods.method import Method, StepContext
from contseg.models.classifier import Start
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class MiB(Method):
    """Unbiased cross-entropy + unbiased distillation; new classifiers start from background.

    The meaning of background changes from step to step. In the labels of a step it includes the old classes, so the student
    may predict an old class there. For the teacher it includes the new classes, so the student may predict a new class.

    Args:
        distillation: weight of the distillation term: 10, and 100 in some published 15-1 and 10-1 runs. 0 omits the term.
    """

    distillation: Weight = 10.0

    name = "mib"
    first_step_is_plain = True
    needs_teacher = True
    new_classes_start_from: ClassVar[Start] = "background"

    @property
    def is_unbiased(self) -> bool:
        """Whether `supervise` is that of MiB, so that both terms can be computed together."""
        return type(self).supervise is MiB.supervise

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Unbiased cross-entropy (eq. 5), or plain where there are no old or no new classes; mean over all pixels."""
        step = context.step
        if step.old_count == 0 or step.new_count == 0:
            return per_pixel(cross_entropy, batch.size, output, batch.labels).mean()
        loss = per_pixel(unbiased_cross_entropy, batch.size, output, batch.labels, step.old_count, batch.annotated)
        return loss.mean()

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term + distillation (eq. 4)."""
        if teacher is None or not self.distillation:
            return super().losses(batch, student, teacher, context)
        if context.step.new_count and self.is_unbiased:
            values = (student, teacher, batch.labels, batch.annotated)
            supervised, kept = per_pixel(unbiased_terms, batch.size, *values, in_bands=shared_unbiased_terms)
            terms = {"cross_entropy": supervised.mean()}
        else:
            terms = super().losses(batch, student, teacher, context)
            kept = per_pixel(unbiased_distillation, batch.size, student, teacher)
        return terms | {"distillation": self.distillation * kept.mean()}

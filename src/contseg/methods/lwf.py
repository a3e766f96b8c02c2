"""LwF: Learning without Forgetting (Li & Hoiem, ECCV 2016), on every pixel."""

from dataclasses import dataclass

from torch import Tensor

from contseg.losses.distillation import distillation
from contseg.methods.method import Method, StepContext
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class LwF(Method):
    """Cross-entropy + distillation of the old outputs, with a softmax over the old outputs only.

    The shift of background is ignored: labels are background where the teacher predicts an old class.

    Args:
        distillation: weight of the distillation term. The term is also a mean over the old classes, so the weight is large.
        alpha: inverse temperature of the teacher.
    """

    distillation: Weight = 100.0
    alpha: Weight = 1.0

    name = "lwf"
    first_step_is_plain = True
    needs_teacher = True

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy + distillation, means over all pixels."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is not None:
            kept = per_pixel(distillation, batch.size, student, teacher, alpha=self.alpha)
            terms["distillation"] = self.distillation * kept.mean()
        return terms

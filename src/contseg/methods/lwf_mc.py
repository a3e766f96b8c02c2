"""LwF-MC: Learning without Forgetting for many classes, iCaRL without its memory (Rebuffi et al., CVPR 2017)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.losses.soft_targets import disjoint_cross_entropy, sigmoid_distillation
from contseg.methods.method import Method, StepContext
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class LwFMC(Method):
    """Every output is a binary classifier; the old ones are also trained with the teacher's probabilities.

    The argmax of the sigmoids is that of the softmax, so any network can be used; `network.decision=sigmoid` only matters
    where scores are averaged.

    Args:
        distillation: weight of the distillation term, times the number of old classes.
        targets: targets of the old outputs. `combined`: labels and teacher, one term each. `disjoint`: the teacher instead
            of the labels (as in the paper), also at ignored pixels. `disjoint-background`: the same, but the label for
            background. The disjoint ones never replace annotated labels (replay memory), and auxiliary outputs, which the
            teacher does not have, are trained with the labels.
    """

    distillation: Weight = 10.0
    targets: Literal["combined", "disjoint", "disjoint-background"] = "combined"

    name = "lwf-mc"
    needs_teacher = True

    def first_step_key(self) -> dict[str, Any]:
        """Binary cross-entropy from step 0 on."""
        return {"supervised": "sigmoid", "average": "all"}

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over all pixels."""
        return per_pixel(sigmoid_cross_entropy, batch.size, output, batch.labels).mean()

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Binary cross-entropy against labels and teacher."""
        if teacher is None:
            return super().losses(batch, student, teacher, context)
        if self.targets == "combined":
            kept = per_pixel(sigmoid_distillation, batch.size, student, teacher)
            weight = self.distillation * teacher.logits.shape[1]
            return super().losses(batch, student, teacher, context) | {"distillation": weight * kept.mean()}
        truth = batch.annotated.clone()
        truth[:, 0] |= self.targets == "disjoint-background"
        loss = per_pixel(disjoint_cross_entropy, batch.size, student, batch.labels, teacher, truth)
        return {"cross_entropy": loss.mean()}

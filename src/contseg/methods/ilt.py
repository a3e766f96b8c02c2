"""ILT: Incremental Learning Techniques for Semantic Segmentation (Michieli & Zanuttigh, ICCVW 2019; CVIU 2021)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from contseg.losses.distillation import distillation
from contseg.losses.features import cosine_distance, old_positions, squared_distance
from contseg.methods.method import Method, StepContext
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch

DISTANCES = {"squared": squared_distance, "cosine": cosine_distance}


@dataclass(frozen=True)
class ILT(Method):
    """Cross-entropy + distillation of the old outputs (as LwF) + distance between the features of the backbones.

    Args:
        distillation: weight of the distillation of logits.
        encoder: weight of the distance between features, those of the last stage after its activation.
        distance: distance between features: `squared`, or `cosine` over channels.
        only_old: compute it only where the label is old or background.
    """

    distillation: Weight = 100.0
    encoder: Weight = 100.0
    distance: Literal["squared", "cosine"] = "squared"
    only_old: bool = False

    name = "ilt"
    first_step_is_plain = True
    taps = ("stage4",)
    needs_teacher = True

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy + distillation of logits + distillation of features."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is not None:
            kept = per_pixel(distillation, batch.size, student, teacher)
            terms["distillation"] = self.distillation * kept.mean()
            activate = context.student.backbone.activate
            new, old = (activate(precise(output.features["stage4"])) for output in (student, teacher))
            terms["encoder"] = self.encoder * self.encoder_distance(new, old, batch, context)
        return terms

    def encoder_distance(self, student_BCHW: Tensor, teacher_BCHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Mean distance over all positions, or over the old ones of all ranks (0 if there are none)."""
        loss_BHW = DISTANCES[self.distance](student_BCHW, teacher_BCHW)
        if not self.only_old:
            return loss_BHW.mean()
        size = (loss_BHW.shape[1], loss_BHW.shape[2])

        def old_ones(labels: Tensor) -> Tensor:
            return old_positions(labels, size, context.step.old_count)

        positions = old_ones(batch.labels)
        return context.mean_over_valid(loss_BHW * (positions == 0), positions, old_ones)

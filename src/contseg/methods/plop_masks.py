"""PLOP on masks: masks of the teacher as targets, and local distillation of features (a baseline of CoMFormer)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.losses.pod import local_pod_loss
from contseg.methods.mask_pseudo_labels import COMFORMER
from contseg.methods.mask_relabelling import with_pseudo_masks
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class PLOPMasks(Method):
    """Local distillation of features + masks of the teacher as targets; new classes start at random.

    Targets by the rule of CoMFormer, of which this is a baseline. Features are the patches after each quarter of the blocks
    and the map that masks are products with.

    Args:
        pod: weight of the distance of a feature map, 0.001 in ADE20K. 0 omits it.
    """

    pod: Weight = 0.001

    name = "plop-masks"
    learns = ("masks",)
    first_step_is_plain = True
    needs_teacher = True
    taps = ("stage1", "stage2", "stage3", "stage4", "head")

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Add the masks of the teacher."""
        if teacher is None or teacher.masks is None:
            return batch
        return with_pseudo_masks(batch, teacher.masks, COMFORMER)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised terms + local POD."""
        terms, step = super().losses(batch, student, teacher, context), context.step
        if teacher is None or not self.pod:
            return terms
        growth = math.sqrt(step.seen_count / step.new_count) if step.new_count else 1.0
        old, new = (list(output.features.values()) for output in (teacher, student))
        return terms | {"pod": local_pod_loss(old, new, [self.pod] * len(new), growth, "fit")}

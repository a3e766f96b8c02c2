"""CoMFormer: Continual Learning in Semantic and Panoptic Segmentation (Cermelli et al., CVPR 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.losses.masks.class_terms import adaptive_distillation, focal_loss
from contseg.methods.mask_pseudo_labels import COMFORMER
from contseg.methods.mask_relabelling import with_pseudo_masks
from contseg.methods.mask_supervision import Matched
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class CoMFormer(Method):
    """Focal class loss + adaptive distillation of classes + masks of the teacher as targets; new classes start at random.

    As its released scripts compute it. Distillation: KL(old || new) of the classes of each query of the last prediction,
    where new classes count as no-object, weighted by (1 - q_none)^2. Pseudo labels: the teacher's queries by
    `contseg.methods.mask_pseudo_labels.COMFORMER`, after the annotated masks. Its masks are a softmax over queries with
    `network.head.shares: softmax`.

    Args:
        distillation: weight of the distillation: 10; 0.5 in 100-50, and 5 in panoptic 100-50. 0 omits it.
        pseudo: whether the teacher's masks are targets.
        focal: whether the class loss is focal, alpha 5 and gamma 1; otherwise that of Mask2Former.
    """

    distillation: Weight = 10.0
    pseudo: bool = True
    focal: bool = True

    name = "comformer"
    learns = ("masks",)
    needs_teacher = True
    whole_batch_terms = ("distillation",)

    def class_term(self, class_logits_BQC: Tensor, matched: Matched, batch: Batch, context: StepContext) -> Tensor:
        """Focal, mean over all queries."""
        if not self.focal:
            return super().class_term(class_logits_BQC, matched, batch, context)
        return focal_loss(class_logits_BQC, matched.classes)

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Add the masks of the teacher."""
        if teacher is None or teacher.masks is None or not self.pseudo:
            return batch
        return with_pseudo_masks(batch, teacher.masks, COMFORMER)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised terms + distillation."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is None or not self.distillation:
            return terms
        assert student.masks is not None
        assert teacher.masks is not None
        kept = adaptive_distillation(student.masks.class_logits, teacher.masks.class_logits, ranks=context.ranks)
        return terms | {"distillation": self.distillation * kept}

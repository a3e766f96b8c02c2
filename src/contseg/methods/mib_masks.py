"""MiB on masks: no-object may be any old class, and for the teacher any new one (a baseline of CoMFormer)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from contseg.losses.masks.class_terms import adaptive_distillation, unbiased_class_loss
from contseg.methods.mask_supervision import Matched, plain_class_term
from contseg.methods.method import Method, StepContext
from contseg.models.classifier import Start
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class MiBMasks(Method):
    """Unbiased cross-entropy of classes + unbiased distillation of them; new classes start from no-object.

    No-object takes the part of background. A query without a target may show an old class, which is not annotated. For the
    teacher no-object includes the new classes. Old probabilities are unchanged when classes are added.

    Args:
        distillation: weight of the distillation, 200 as in the baseline of CoMFormer. 0 omits it.
    """

    distillation: Weight = 200.0

    name = "mib-masks"
    learns = ("masks",)
    first_step_is_plain = True
    needs_teacher = True
    new_classes_start_from: ClassVar[Start] = "background"

    def class_term(self, class_logits_BQC: Tensor, matched: Matched, batch: Batch, context: StepContext) -> Tensor:
        """Unbiased, or plain where there are no old classes."""
        old = context.step.old_count
        if old == 0:
            return super().class_term(class_logits_BQC, matched, batch, context)
        return plain_class_term(class_logits_BQC, matched, batch, context, partial(unbiased_class_loss, old=old))

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised terms + distillation, mean over queries."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is None or not self.distillation:
            return terms
        assert student.masks is not None
        assert teacher.masks is not None
        kept = adaptive_distillation(student.masks.class_logits, teacher.masks.class_logits, gamma=None)
        return terms | {"distillation": self.distillation * kept}

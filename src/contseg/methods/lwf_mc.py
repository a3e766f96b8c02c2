"""LwF-MC: Learning without Forgetting for many classes, iCaRL without its memory (Rebuffi et al., CVPR 2017)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.losses.soft_targets import disjoint_cross_entropy, sigmoid_distillation
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class LwFMC(Method):
    """Every output is a binary classifier of its own; the old ones are also told what the teacher thinks.

    The arg max of the sigmoids is that of the soft-max, so any network will do; `network.decision=sigmoid` matters only
    where scores are averaged.

    Args:
        distillation: weight of the distillation term, times the number of old classes.
        targets: what old outputs learn from: `combined`, labels and teacher, a term each; `disjoint`, the teacher in place
            of the labels (as the paper has it), at ignored pixels too; `disjoint-background`, the same, but for background
            the label. In the disjoint ones the teacher never replaces what was annotated (replay memory), and auxiliary
            outputs, of which it has none, learn from the labels.
    """

    distillation: float = 10.0
    targets: Literal["combined", "disjoint", "disjoint-background"] = "combined"

    name = "lwf-mc"
    needs_teacher = True

    def first_step_key(self) -> dict[str, Any]:
        """Binary cross-entropy from the start."""
        return {"supervised": "sigmoid", "average": "all"}

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over all pixels."""
        return sigmoid_cross_entropy(logits_BKHW, batch.labels).mean()

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Binary cross-entropy, against labels and teacher."""
        logits = student.logits_at(batch.size)
        if teacher is None:
            return {"cross_entropy": self.supervise(logits, batch, context)}
        asked = teacher.logits_at(batch.size)
        if self.targets == "combined":
            kept = sigmoid_distillation(logits, asked)
            weight = self.distillation * asked.shape[1]
            return {"cross_entropy": self.supervise(logits, batch, context), "distillation": weight * kept.mean()}
        truth = batch.annotated.clone()
        truth[:, 0] |= self.targets == "disjoint-background"
        return {"cross_entropy": disjoint_cross_entropy(logits, batch.labels, asked, truth).mean()}

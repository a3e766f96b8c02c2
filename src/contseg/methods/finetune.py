"""The lower bound: keep training, and forget."""

from dataclasses import dataclass

from torch import Tensor

from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class Finetune(Method):
    """Plain cross-entropy on the labels of each step; nothing holds on to old classes.

    On the scenario `offline` this is the joint upper bound.
    """

    name = "finetune"
    first_step_is_plain = True
    handles_unknown = True

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy, mean over all pixels."""
        return {"cross_entropy": self.supervise(student.logits_at(batch.size), batch, context)}

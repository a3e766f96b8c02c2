"""The base of DKD, STAR and Adapter: a binary classifier per class, and none for background."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.losses.one_vs_rest import one_vs_rest
from contseg.methods.method import Method, StepContext
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class OneVsRest(Method):
    """Binary cross-entropy of the classes of a step; norms are frozen and dropout is off in later steps.

    Ignored pixels (255) do not count. In an exemplar of an earlier step, background may hide a class of this step, so there
    it does not count for this class.

    Args:
        positive_weight_first: weight of the pixels of a class against all others, in step 0.
        positive_weight: in later steps.
    """

    positive_weight_first: Weight = 1.0
    positive_weight: Weight = 1.0

    needs_teacher = True

    void_is_negative: ClassVar[bool] = False
    """Whether ignored pixels are negatives of every class, and the mean is over all pixels, as in the released code."""

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """The network must decide with a sigmoid per class, there must be a background, and every step must add classes."""
        super().check(network, steps)
        if network.decision != "sigmoid":
            raise ContsegError(
                f"network.decision: method '{self.name}' trains every class separately; set network.decision=sigmoid"
                f" (it is {network.decision})"
            )
        for step in steps:
            if not step.table.has_background:
                raise ContsegError(
                    f"method.name: '{self.name}' predicts background where no class fits, and these classes have no"
                    " background; use another method"
                )
            if not step.new_count:
                raise ContsegError(
                    f"method.name: '{self.name}' learns the classes that a step adds, and step {step.index} adds none; use"
                    " another method"
                )

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Freeze norms and switch off dropout in later steps."""
        if step.old_count:
            segmenter.freeze(norms=True, dropout=True)

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over the classes of the step, mean over the valid pixels of all ranks."""
        first = max(1, context.step.old_count)
        labels = batch.labels
        weight = self.positive_weight if context.step.old_count else self.positive_weight_first
        loss_BNHW = one_vs_rest(output.logits_at(batch.size)[:, first:], labels, first, weight)
        known = batch.annotated[:, first:, None, None] | (labels > 0)[:, None]
        loss = loss_BNHW.where(known, 0.0).sum(dim=1)
        if self.void_is_negative:
            return loss.mean()
        return context.mean_over_valid(loss.where(labels != IGNORE, 0.0), labels)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """The supervised term alone; subclasses add to it."""
        return {"binary": self.supervise(student, batch, context)}

"""The other lower bound: forget nothing, and learn little."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from contseg.errors import ContsegError
from contseg.methods.method import Method, StepContext
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class Frozen(Method):
    """Plain cross-entropy in which, after step 0, only the classifiers of the new classes learn.

    All else is held, statistics of norms included, so the logits of old classes stay what they were, bit for bit; old
    classes are only lost to new ones that outbid them. (Under IDRNet they move nevertheless: its tables, which are no
    parameters, go on learning from every batch.)
    """

    name = "frozen"
    first_step_is_plain = True
    handles_unknown = True

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Every later step must bring classes, or nothing is left that may learn."""
        super().check(network, steps)
        for step in steps[1:]:
            if step.new_count == 0:
                raise ContsegError(
                    f"method.name: '{self.name}' learns nothing but new classes, and step {step.index} brings none;"
                    " use another method, such as finetune"
                )

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Hold everything but the newest step of every classifier."""
        if step.old_count:
            segmenter.freeze_all_but(-1)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy, mean over all pixels."""
        return {"cross_entropy": self.supervise(student.logits_at(batch.size), batch, context)}

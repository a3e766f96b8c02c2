"""Frozen network: a second baseline, which forgets nothing and learns little."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from contseg.errors import ContsegError
from contseg.methods.mask_supervision import Matched
from contseg.methods.method import Method, StepContext
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class Frozen(Method):
    """Plain cross-entropy; after step 0, only the classifiers of the new classes are trained.

    Everything else is frozen, including the statistics of norms, so the logits of old classes are bit-equal from step to
    step. An old class is only lost where a new one has a higher logit. (With IDRNet old logits do change: its tables are no
    parameters and are updated by every batch.)
    """

    name = "frozen"
    learns = ("pixels", "masks")
    first_step_is_plain = True
    handles_unknown = True

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check that every later step adds classes, as otherwise there is nothing to train."""
        super().check(network, steps)
        for step in steps[1:]:
            if step.new_count == 0:
                raise ContsegError(
                    f"method.name: '{self.name}' only trains new classes, and step {step.index} has none;"
                    " use another method, such as finetune"
                )

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Freeze everything but the newest step of every classifier."""
        if step.old_count:
            segmenter.freeze_all_but(-1)

    def mask_terms(
        self, output: SegmenterOutput, batch: Batch, context: StepContext, matched: Matched | None = None
    ) -> dict[str, Tensor]:
        """In later steps the term of classes alone, as masks do not change."""
        terms = super().mask_terms(output, batch, context, matched)
        return {"class": terms["class"]} if context.step.old_count else terms

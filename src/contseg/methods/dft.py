"""DFT*: direct fine-tuning of classifiers on a frozen trunk (Revisiting continual semantic segmentation, 2025)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.methods.method import Method, StepContext
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class DFT(Method):
    """Plain cross-entropy on a frozen trunk, with the classifiers of all steps from the beginning: the honest floor.

    Every step trains over the outputs of all steps, so classes of the future are negatives from step 0 on. Later
    steps freeze the backbone, the head, the norms, and the classifiers of old classes with that of background. They train
    the classifiers of their own classes and of those to come. Nothing is distilled, and no pseudo-label is made.

    The logits of old classes never change. The outputs of future classes are no part of the logits, so they are never
    predicted; the released code predicts them in earlier steps and counts them in a wrong row.
    """

    name = "dft"
    taps = ("head",)
    first_taps = ("head",)
    new_classes_start_from = "reserved"

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check that every later step adds classes, as otherwise there is nothing to train, and classes may be reserved."""
        super().check(network, steps)
        if network.head.tokens:
            raise ContsegError(
                f"network.head: method '{self.name}' makes the classifiers of all steps at step 0, and the class tokens of"
                f" {network.head.name} see each other; set network.head.name=deeplabv3-mib"
            )
        for step in steps[1:]:
            if not step.new_count:
                raise ContsegError(
                    f"method.name: '{self.name}' only trains classifiers, and step {step.index} adds no class; use another"
                    " method, such as finetune"
                )

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """In later steps, freeze everything but the newest classifier and those to come."""
        if step.old_count:
            segmenter.freeze_all_but(-1, dropout=True)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy over the outputs of all steps."""
        classifier = context.student.classifier
        if not classifier.later:  # the last step
            return {"cross_entropy": self.supervise(student, batch, context)}
        later, logits = classifier.later_logits(precise(student.features["head"])), precise(student.logits)
        if later.shape[2:] != logits.shape[2:]:  # some networks of other libraries resize their logits
            later = resize(later, (logits.shape[2], logits.shape[3]))
        every = SegmenterOutput(torch.cat([logits, later], dim=1))
        return {"cross_entropy": self.supervise(every, batch, context)}

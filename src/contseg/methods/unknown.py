"""The base of SSUL, IDEC and LAG: an output "unknown" for future classes, and steps that train classifiers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError
from contseg.losses.confidence import first_best
from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.methods.method import Method, StepContext
from contseg.methods.pseudo_labels import fill_in
from contseg.models.classifier import GrowingClassifier
from contseg.models.options import NetworkOptions
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import Share, Weight
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

UNKNOWN, BACKGROUND, NEWEST = 0, 1, -1


@dataclass(frozen=True)
class WithUnknown(Method):
    """Binary cross-entropy per output; pseudo-labels above a threshold; later steps may train classifiers only.

    Args:
        threshold: minimum score of the teacher for its class to replace background.
        background_factor: factor of the learning rate for background's classifier in later steps. In the labels of SSUL
            without saliency maps no pixel is background, so its classifier only has negative targets and should change
            little.
    """

    threshold: Share = 0.7
    background_factor: Weight = 1e-4

    needs_teacher = True
    new_classes_start_from = "unknown"
    handles_unknown = True
    needs_unknown = True

    classifiers_only: ClassVar[bool] = True
    """Whether later steps train only the classifiers of unknown, background and the new classes."""
    old_factor = 1.0
    """Factor of the learning rate for the classifiers of old classes in later steps; a hyper-parameter of IDEC and LAG."""

    def first_step_key(self) -> dict[str, Any]:
        """Binary cross-entropy from step 0 on, the same for all these methods."""
        return {"supervised": "sigmoid"}

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """The network must decide with a sigmoid per output."""
        super().check(network, steps)
        if network.decision != "sigmoid":
            raise ContsegError(
                f"network.decision: method '{self.name}' trains every output separately; set network.decision=sigmoid"
                f" (it is {network.decision})"
            )

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Freeze everything else, including norms, in later steps with `classifiers_only`."""
        if self.classifiers_only and _adds_classes(step):
            segmenter.freeze_all_but(UNKNOWN, BACKGROUND, NEWEST)

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """In later steps, smaller learning rates for the classifiers of background and of old classes."""
        if not _adds_classes(step):
            return super().parameter_groups(segmenter, step)
        factors: dict[int, float] = {}
        for module in segmenter.modules():
            if isinstance(module, GrowingClassifier):
                _, background, *old, _ = module.steps
                factors |= {id(parameter): self.background_factor for parameter in background.parameters()}
                factors |= {id(parameter): self.old_factor for part in old for parameter in part.parameters()}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in segmenter.parameters():
            if parameter.requires_grad:
                groups.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        return [{"params": parameters, "lr_factor": factor} for factor, parameters in groups.items()]

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Replace unknown and background by the teacher's class where the teacher is confident."""
        if teacher is None:
            return batch
        best = per_pixel(lambda logits: self.best(logits.sigmoid()), batch.size, teacher)
        predicted, confident = self.confident(best, context)
        return fill_in(batch, predicted, confident, context.step.foreground)

    def best(self, scores_BOHW: Tensor) -> tuple[Tensor, ...]:
        """The teacher's class of each pixel, its score, and whatever else `confident` reads: maps (B, H, W)."""
        return first_best(scores_BOHW), scores_BOHW.amax(dim=1)

    def confident(self, best: tuple[Tensor, ...], context: StepContext) -> tuple[Tensor, Tensor]:
        """The teacher's class of each pixel and whether it is a pseudo-label: (B, H, W) int64 and bool.

        Args:
            best: of all pixels of the batch.
        """
        predicted, score = best
        return predicted, score >= self.threshold

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over the valid pixels of all ranks."""
        loss = per_pixel(sigmoid_cross_entropy, batch.size, output, batch.labels)
        return context.mean_over_valid(loss, batch.labels)


def _adds_classes(step: Step) -> bool:
    return step.old_count > 0 and step.new_count > 0

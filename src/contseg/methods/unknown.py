"""What SSUL, IDEC and LAG share: an output "unknown" for what is not learned yet, and steps that train classifiers only."""

from typing import Any

from torch import Tensor, nn

from contseg.errors import ContsegError
from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.methods.method import StepContext
from contseg.models.classifier import GrowingClassifier
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

UNKNOWN, BACKGROUND, NEWEST = 0, 1, -1
FIRST_STEP = {"supervised": "sigmoid"}
"""What the three change in step 0; they share it."""


def supervise_each_output(logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
    """Binary cross-entropy summed over outputs, mean over the pixels of all ranks that are not ignored."""
    return context.mean_over_valid(sigmoid_cross_entropy(logits_BKHW, batch.labels), batch.labels)


def require_sigmoid(network: NetworkOptions, method: str) -> None:
    """Nothing, if the network decides output by output.

    Raises:
        ContsegError: it decides by soft-max.
    """
    if network.decision != "sigmoid":
        raise ContsegError(
            f"network.decision: method '{method}' learns every output on its own; set network.decision=sigmoid"
            f" (it is {network.decision})"
        )


def freezes(step: Step) -> bool:
    """Whether a step has new classifiers that can learn alone."""
    return step.old_count > 0 and step.new_count > 0


def learn_classifiers_only(segmenter: Segmenter) -> None:
    """Hold everything but the classifiers of unknown, background and the newest classes, and the norms of these too."""
    segmenter.freeze_all_but(UNKNOWN, BACKGROUND, NEWEST)


def classifier_groups(segmenter: Segmenter, background_factor: float, old_factor: float = 1.0) -> list[dict[str, Any]]:
    """What learns, in groups by rate: the classifiers of background and of old classes at fractions of it, and the rest.

    Args:
        background_factor: in SSUL's labels no pixel is background where there are no saliency maps; its classifier, told
            only what it is not, must hardly move.
        old_factor: of classes that are neither new nor unknown nor background.
    """
    factors: dict[int, float] = {}
    for module in segmenter.modules():
        if isinstance(module, GrowingClassifier):
            _, background, *old, _ = module.steps
            factors |= {id(parameter): background_factor for parameter in background.parameters()}
            factors |= {id(parameter): old_factor for step in old for parameter in step.parameters()}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in segmenter.parameters():
        if parameter.requires_grad:
            groups.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
    return [{"params": parameters, "lr_factor": factor} for factor, parameters in groups.items()]


def opinion(teacher: SegmenterOutput, size: tuple[int, int]) -> Tensor:
    """What the teacher thinks of every output, on its own: (B, O, H, W) in [0, 1]."""
    return teacher.logits_at(size).sigmoid()

"""Published networks of BARM: convert their names to ours."""

from typing import Literal

from torch import Tensor

from contseg.errors import ContsegError
from contseg.interop.names import load_strictly, renamed
from contseg.models.backbones.options import ResNetOptions
from contseg.models.heads.options import DeepLabV3BARMOptions
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

ResidualSource = Literal["barm"]

NAMES = (
    (r"^classifier\.head_pre\.", "classifier.steps.0."),
    (r"^classifier\.ear\.(\d+)\.", lambda m: f"classifier.steps.{int(m[1]) + 1}."),
    (r"^classifier\.head\.(\d+)\.", lambda m: f"classifier.steps.{m[1]}.3."),
    (r"^classifier\.aspp\.convs\.4\.(\d)\.", lambda m: f"head.aspp.pooled.{int(m[1]) - 1}."),
    (r"^classifier\.aspp\.convs\.", "head.aspp.branches."),
    (r"^classifier\.aspp\.project\.", "head.aspp.project."),
)


def convert_residual(tensors: dict[str, Tensor], source: ResidualSource) -> tuple[Segmenter, list[int]]:
    """Convert a published ResNet-101 segmenter of BARM to a `Segmenter` (eval mode); also returns the outputs of each step.

    Args:
        tensors: the state dict, without a `module.` prefix.
        source: `barm`.

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape.
    """
    found = {renamed(name, NAMES): value for name, value in tensors.items()}
    counts: list[int] = []
    while (bias := found.get(f"classifier.steps.{len(counts)}.3.bias")) is not None:
        counts.append(len(bias))
    if not counts:
        raise ContsegError(f"weights: no classifiers with the tensor names of {source} (classifier.head.0)")
    widths = [counts[0], *(count - 1 for count in counts[1:])]  # a later step has a residual in front
    options = NetworkOptions(
        backbone=ResNetOptions(slope=0.0, contracted=True, norm_momentum=0.01),
        head=DeepLabV3BARMOptions(),
        decision="sigmoid",
        background="residual",
    )
    return load_strictly(Segmenter(options, widths), found), widths

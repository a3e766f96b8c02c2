"""Published networks of DKD and STAR: convert their names to ours."""

import re
from typing import Literal

from torch import Tensor

from contseg.errors import ContsegError
from contseg.interop.names import load_strictly, renamed
from contseg.models.backbones.options import ResNetOptions
from contseg.models.heads.options import DeepLabV3DKDOptions
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

OneVsRestSource = Literal["dkd", "star"]

NAMES = (
    (r"^aspp\.convs\.4\.(\d)\.", lambda m: f"head.aspp.pooled.{int(m[1]) - 1}."),
    (r"^aspp\.convs\.", "head.aspp.branches."),
    (r"^aspp\.project\.", "head.aspp.project."),
    (r"^aspp\.last_conv\.", "head.last."),
)
AUXILIARY = ((r"^cls\.0\.", "classifier.auxiliary."), (r"^cls\.(\d+)\.", lambda m: f"classifier.steps.{int(m[1]) - 1}."))
PLAIN = ((r"^cls\.", "classifier.steps."),)


def convert_one_vs_rest(tensors: dict[str, Tensor], source: OneVsRestSource) -> tuple[Segmenter, list[int]]:
    """Convert a published ResNet-101 segmenter to a `Segmenter` (eval mode); also returns the outputs of each step.

    Background has no output: its logit is the constant 0, which decides like the rule of these methods, background where
    no score exceeds one half.

    Args:
        tensors: the state dict, without a `module.` prefix.
        source: `dkd`, whose `cls.0` is the auxiliary classifier and `cls.1` has the classes of step 0; or `star`, whose
            `cls.0` has them.

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape.
    """
    counts = [len(tensors[name]) for name in sorted(_classifiers(tensors), key=_number)]
    auxiliary = source == "dkd"
    if len(counts) < 1 + auxiliary:
        needed = "cls.0 and cls.1" if auxiliary else "cls.0"
        raise ContsegError(f"weights: no classifiers with the tensor names of {source} ({needed})")
    if auxiliary and counts[0] != 1:
        raise ContsegError(
            f"weights: cls.0 has {counts[0]} outputs, and the auxiliary classifier of dkd has one; these may be weights of"
            " star: use --from star"
        )
    first, *others = counts[auxiliary:]
    widths = [first + 1, *others]
    options = NetworkOptions(
        backbone=ResNetOptions(slope=0.0, contracted=True, norm_momentum=0.01),
        head=DeepLabV3DKDOptions(),
        decision="sigmoid",
        background="auxiliary" if auxiliary else "constant",
    )
    rules = (*NAMES, *(AUXILIARY if auxiliary else PLAIN))
    return load_strictly(
        Segmenter(options, widths), {renamed(name, rules): value for name, value in tensors.items()}
    ), widths


def is_star(tensors: dict[str, Tensor]) -> bool:
    """Whether tensors with the names of both code bases are those of STAR: the first classifier has several classes."""
    first = tensors.get("cls.0.weight")
    return first is not None and len(first) > 1


def _classifiers(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name in tensors if re.fullmatch(r"cls\.\d+\.weight", name)]


def _number(name: str) -> int:
    return int(name.split(".")[1])

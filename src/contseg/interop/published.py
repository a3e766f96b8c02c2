"""Published networks of continual methods: convert their names and norms to ours.

In-place activated batch norm computes act((|w| + 1e-5) (x - mean) / sqrt(var + 1e-5) + b). Ordinary batch norm with
w := |w| + 1e-5 is the same function, so the weights are converted here.
"""

import re
from typing import Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError, did_you_mean
from contseg.interop.names import load_strictly, renamed
from contseg.models.backbones.options import ResNetOptions
from contseg.models.heads.options import DeepLabV3MiBOptions, DeepLabV3RCILOptions, DeepLabV3SSULOptions
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

Source = Literal["mib", "plop", "sdr", "csseg", "ssul", "idec", "lag"]
INPLACE_EPSILON = 1e-5

MIB_NAMES = (
    (r"^body\.mod1\.", "backbone."),
    (r"^body\.mod(\d)\.block(\d+)\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{int(m[2]) - 1}."),
    (r"^head\.map_convs\.", "head.branches."),
    (r"^head\.map_bn\.", "head.branches_norm."),
    (r"^head\.map_convs_new\.", "head.branches_new."),
    (r"^head\.map_bn_new\.", "head.branches_norm_new."),
    (r"^head\.global_pooling_conv\.", "head.pooled_conv."),
    (r"^head\.global_pooling_bn\.", "head.pooled_norm."),
    (r"^head\.red_conv\.", "head.branches_project."),
    (r"^head\.pool_red_conv\.", "head.pooled_project."),
    (r"^head\.red_bn\.", "head.norm."),
    (r"^cls\.", "classifier.steps."),
    (r"\.convs\.", "."),
    (r"\.proj_conv\.", ".downsample.0."),
    (r"\.proj_bn\.", ".downsample.1."),
)
CSSEG_NAMES = (
    (r"^encoder\.", "backbone."),
    (r"^decoder\.parallel_convs\.", "head.branches."),
    (r"^decoder\.parallel_bn\.", "head.branches_norm."),
    (r"^decoder\.global_branch\.0\.", "head.pooled_conv."),
    (r"^decoder\.global_branch\.1\.", "head.pooled_norm."),
    (r"^decoder\.global_branch\.3\.", "head.pooled_project."),
    (r"^decoder\.out_project\.0\.", "head.branches_project."),
    (r"^decoder\.out_project\.1\.", "head.norm."),
    (r"^convs_cls\.", "classifier.steps."),
)
SDR_NAMES = ((r"^body\.", "backbone."), *MIB_NAMES)
"""SDR's documented commands train a torchvision-style backbone with plain norms and the head of MiB."""
SSUL_NAMES = (
    (r"^classifier\.aspp\.", "head.aspp."),
    (r"^classifier\.aspp_l([123])\.", lambda m: f"head.dense.{int(m[1]) - 1}."),
    (r"\.convs\.4\.(\d)\.", lambda m: f".pooled.{int(m[1]) - 1}."),
    (r"\.convs\.", ".branches."),
    (r"^classifier\.head\.", "classifier.steps."),
)
BRANCH_BIAS = re.compile(r"\.conv2\.bias$|^head\.branches\.\d\.bias$")
"""Biases of the first branches of RCIL."""
SOURCES = ("mib", "plop", "sdr", "csseg", "ssul", "idec", "lag")


def convert_segmenter(tensors: dict[str, Tensor], source: Source) -> tuple[Segmenter, list[int]]:
    """Convert a published ResNet-101 segmenter to a `Segmenter` (eval mode); also returns the outputs of each step.

    Args:
        tensors: the state dict, without a `module.` prefix.
        source: the code base of the names.

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape.
    """
    if source not in SOURCES:
        raise ContsegError(f"source: unknown code base '{source}'; {did_you_mean(source, SOURCES)}")
    if source in ("ssul", "idec", "lag"):
        return _convert_ssul(tensors)
    plain = "body.layer1.0.conv1.weight" in tensors
    rules = SDR_NAMES if plain else CSSEG_NAMES if source == "csseg" else MIB_NAMES
    found = {renamed(name, rules): value for name, value in tensors.items()}
    if not plain:
        found = with_plain_norms(found)
    widths = _widths(found, "classifier.steps.{}.weight", source)
    options = NetworkOptions(backbone=ResNetOptions(slope=0.01))
    if plain:
        backbone = ResNetOptions(slope=0.0, norm_momentum=3e-4)
        options = NetworkOptions(backbone=backbone, head=DeepLabV3MiBOptions(slope=1.0))
    if "head.branches_new.0.weight" in found:  # RCIL
        options = NetworkOptions(backbone=ResNetOptions(slope=0.01, branches=2), head=DeepLabV3RCILOptions())
    segmenter = Segmenter(options, widths)
    if options.head.name == "deeplabv3-rcil":  # a branch has no bias before it is merged
        own = segmenter.state_dict()
        found = {name: own[name] for name in own if BRANCH_BIAS.search(name)} | found
    return load_strictly(segmenter, found), widths


def _convert_ssul(tensors: dict[str, Tensor]) -> tuple[Segmenter, list[int]]:
    """SSUL, IDEC and LAG: a classifier with hidden layers per step, after those of unknown and background.

    SSUL has no pyramids over the first stages. They keep their initial values and are only used in distillation.
    """
    found = {renamed(name, SSUL_NAMES): value for name, value in tensors.items()}
    widths = _widths(found, "classifier.steps.{}.3.weight", "ssul, idec and lag")
    options = NetworkOptions(
        backbone=ResNetOptions(slope=0.0, contracted=True, norm_momentum=0.01),
        head=DeepLabV3SSULOptions(),
        decision="sigmoid",
        unknown=widths[:2] == [1, 1],
    )
    segmenter = Segmenter(options, widths)
    if not any(name.startswith("head.dense.") for name in found):
        found |= {name: value for name, value in segmenter.state_dict().items() if name.startswith("head.dense.")}
    return load_strictly(segmenter, found), widths


def _widths(found: dict[str, Tensor], name: str, source: str) -> list[int]:
    widths: list[int] = []
    while (weight := found.get(name.format(len(widths)))) is not None:
        widths.append(int(weight.shape[0]))
    if not widths:
        raise ContsegError(f"weights: no classifier with the tensor names of {source}")
    return widths


def convert_backbone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a backbone in our (torchvision's) names; those of in-place ABN (`mod2...`) are converted."""
    if not any(name.startswith("mod1.") for name in tensors):
        return tensors
    names = {renamed(f"body.{name}", MIB_NAMES).removeprefix("backbone."): value for name, value in tensors.items()}
    kept = {name.removeprefix("body."): value for name, value in names.items()}
    return with_plain_norms(kept)


def with_plain_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with w := |w| + 1e-5 for the weights of norms, which have a running mean."""
    norms = {name.removesuffix("running_mean") + "weight" for name in tensors if name.endswith(".running_mean")}
    return {
        name: value.abs() + torch.tensor(INPLACE_EPSILON, dtype=value.dtype) if name in norms else value
        for name, value in tensors.items()
    }

"""Published networks of the MiB family: their names and their norms, turned into ours.

In-place activated batch norm computes act((|w| + 1e-5) (x - mean) / sqrt(var + 1e-5) + b); ordinary batch norm with
w := |w| + 1e-5 is the same function, so weights are converted once, here, and nowhere else.
"""

from typing import Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError, did_you_mean
from contseg.interop.names import load_strictly, renamed
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

Source = Literal["mib", "plop", "sdr", "csseg"]
INPLACE_EPSILON = 1e-5

MIB_NAMES = (
    (r"^body\.mod1\.", "backbone."),
    (r"^body\.mod(\d)\.block(\d+)\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{int(m[2]) - 1}."),
    (r"^head\.map_convs\.", "head.branches."),
    (r"^head\.map_bn\.", "head.branches_norm."),
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
NAMES = {"mib": MIB_NAMES, "plop": MIB_NAMES, "sdr": MIB_NAMES, "csseg": CSSEG_NAMES}


def convert_segmenter(tensors: dict[str, Tensor], source: Source) -> tuple[Segmenter, list[int]]:
    """A published ResNet-101 segmenter with in-place ABN as a `Segmenter` (eval mode), and its classes per step.

    Args:
        tensors: the state dict, without a `module.` prefix.
        source: whose names they are.

    Raises:
        ContsegError: a tensor is missing, unexpected or of another shape; nothing is ever left out silently.
    """
    if source not in NAMES:
        raise ContsegError(f"source: unknown code base '{source}'; {did_you_mean(source, NAMES)}")
    found = with_plain_norms({renamed(name, NAMES[source]): value for name, value in tensors.items()})
    widths: list[int] = []
    while (weight := found.get(f"classifier.steps.{len(widths)}.weight")) is not None:
        widths.append(int(weight.shape[0]))
    if not widths:
        raise ContsegError(f"weights: hold no classifier under the names of {source}")
    segmenter = Segmenter(NetworkOptions(backbone="resnet101", slope=0.01), widths)
    return load_strictly(segmenter, found), widths


def convert_backbone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's state dict in our names: torchvision's are ours already, in-place-ABN's (`mod2...`) are converted."""
    if not any(name.startswith("mod1.") for name in tensors):
        return tensors
    names = {renamed(f"body.{name}", MIB_NAMES).removeprefix("backbone."): value for name, value in tensors.items()}
    kept = {name.removeprefix("body."): value for name, value in names.items()}
    return with_plain_norms(kept)


def with_plain_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with w := |w| + 1e-5 wherever a running mean shows that w belongs to a norm."""
    norms = {name.removesuffix("running_mean") + "weight" for name in tensors if name.endswith(".running_mean")}
    return {
        name: value.abs() + torch.tensor(INPLACE_EPSILON, dtype=value.dtype) if name in norms else value
        for name, value in tensors.items()
    }

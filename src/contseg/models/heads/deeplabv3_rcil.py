"""The DeepLabV3 head of the MiB family with two branches (RCIL)."""

from typing import Any

from torch import Tensor, nn

from contseg.models.branches import Branch, BranchConv2d, TwoBranches, shape_of
from contseg.models.heads.deeplabv3_mib import DeepLabV3MiB
from contseg.models.normalization import BatchNorm


class DeepLabV3RCIL(TwoBranches, DeepLabV3MiB):
    """`DeepLabV3MiB` whose pyramid, four convolutions under one norm, exists twice; both are mixed.

    Args: see `DeepLabV3MiB`.

    Example:
        >>> import torch
        >>> DeepLabV3RCIL([8, 16, 32, 64], 16, output_stride=8)([torch.zeros(2, 64, 6, 6)]).shape
        torch.Size([2, 16, 6, 6])
    """

    first_parts = ("branches", "branches_norm")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        sizes = [shape_of(one) for one in convolutions(self.branches)]
        self.branches = nn.ModuleList(BranchConv2d(*each) for each in sizes)
        self.branches_new = nn.ModuleList(nn.Conv2d(*each, bias=False) for each in sizes)  # type: ignore[misc]
        self.branches_norm_new = BatchNorm(4 * self.width)

    def pair(self) -> tuple[Branch, Branch]:
        """Of the pyramid."""
        return (
            Branch(convolutions(self.branches), self.branches_norm),
            Branch(convolutions(self.branches_new), self.branches_norm_new),
        )

    def pyramid(self, x_BCHW: Tensor) -> Tensor:
        """The four convolutions under their norm: both branches, mixed."""
        return self.mix(x_BCHW)


def convolutions(modules: nn.ModuleList) -> list[nn.Conv2d]:
    """The convolutions of a list."""
    return [module for module in modules if isinstance(module, nn.Conv2d)]

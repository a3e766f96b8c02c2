"""Blocks of a ResNet whose second convolution has two branches (RCIL)."""

from typing import Any

from torch import Tensor, nn

from contseg.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from contseg.models.branches import Branch, BranchConv2d, TwoBranches, shape_of
from contseg.models.normalization import BatchNorm


class _TwoBranchBlock(TwoBranches):
    """A mixin before a block: `conv2` and `bn2` are the first branch, `conv2_new` and `bn2_new` the second."""

    first_parts = ("conv2", "bn2")
    conv2: nn.Conv2d
    bn2: BatchNorm

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        sizes = shape_of(self.conv2)
        self.conv2 = BranchConv2d(*sizes)
        self.conv2_new = nn.Conv2d(*sizes, bias=False)  # type: ignore[misc]
        self.bn2_new = BatchNorm(self.conv2.out_channels)

    def pair(self) -> tuple[Branch, Branch]:
        """Of the second convolution."""
        return Branch([self.conv2], self.bn2), Branch([self.conv2_new], self.bn2_new)

    def second(self, x_BCHW: Tensor) -> Tensor:
        """The second convolution with its norm: both branches, mixed."""
        return self.mix(x_BCHW)


class TwoBranchBasicBlock(_TwoBranchBlock, BasicBlock):
    """A `BasicBlock` with two branches."""


class TwoBranchBottleneck(_TwoBranchBlock, Bottleneck):
    """A `Bottleneck` whose 3x3 convolution has two branches."""


class TwoBranchResNet(ResNet):
    """A `ResNet` of blocks with two branches; its plain stem has no activation, as released.

    Example:
        >>> import torch
        >>> [tuple(stage.shape[1:]) for stage in TwoBranchResNet("resnet18", width=8)(torch.zeros(1, 3, 64, 64))]
        [(8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 4, 4)]
    """

    active_stem = False

    @staticmethod
    def block(kind: str) -> Any:
        """The class of the blocks, `basic` or `bottleneck`."""
        return TwoBranchBasicBlock if kind == "basic" else TwoBranchBottleneck

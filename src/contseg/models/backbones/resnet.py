"""Dilated residual networks that return the sum of every stage before its activation."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from contseg.errors import ContsegError, did_you_mean
from contseg.models.backbones.backbone import Backbone
from contseg.models.initialisation import initialise_convolutions
from contseg.models.names import DEPTHS, STRIDES, Initialisation
from contseg.models.normalization import BatchNorm, activation

Activation = Callable[[Tensor], Tensor] | None
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}


class ResNet(Backbone):
    """ResNet-18 to -101, dilated to an output stride, with plain or leaky activation.

    All blocks of a stage have its dilation ("uncontracted"), as in the in-place-ABN networks of MiB and PLOP; with
    `contracted`, the first block of a dilated stage has the dilation of the stage before, as in torchvision. The stride of
    a bottleneck is in its 3x3 convolution.

    Args:
        name: `resnet18`, `resnet34`, `resnet50`, `resnet101`.
        output_stride: 8, 16 or 32, input pixels per output pixel.
        slope: slope of the leaky ReLU; 0.01 replaces in-place activated batch norm, 0 is ReLU.
        width: channels of the narrow convolutions in the first stage (64 in the publications).
        contracted: see above.
        deep_stem: three 3x3 convolutions in place of the 7x7 ("V1c").
        momentum: of the norms.
        initialisation: of the convolutions, see `initialise_convolutions`.

    Returns (forward):
        Four maps, (B, C_i, H_i, W_i): the sums at the end of each stage **before** activation. `activate` gives the input
        of the next stage.

    Raises:
        ContsegError: unknown name or output stride.

    Example:
        >>> import torch
        >>> [tuple(stage.shape[1:]) for stage in ResNet("resnet18", output_stride=8, width=8)(torch.zeros(1, 3, 64, 64))]
        [(8, 16, 16), (16, 8, 8), (32, 8, 8), (64, 8, 8)]
    """

    active_stem = True
    """Whether the plain stem has an activation."""

    def __init__(
        self,
        name: str,
        output_stride: int = 16,
        slope: float = 0.01,
        width: int = 64,
        contracted: bool = False,
        deep_stem: bool = False,
        momentum: float = 0.1,
        initialisation: Initialisation = "torch",
    ):
        super().__init__()
        if name not in DEPTHS:
            raise ContsegError(f"network.backbone: unknown backbone '{name}'; {did_you_mean(name, DEPTHS)}")
        if output_stride not in STRIDES:
            raise ContsegError(f"network.backbone.output_stride: {output_stride} is not possible; choose 8, 16 or 32")
        kind, depths = DEPTHS[name]
        block = self.block(kind)
        self.activation = activation(slope)
        self.stem = _deep_stem(width, slope) if deep_stem else None
        if not deep_stem:
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = BatchNorm(width)
        channels = width
        self.channels: list[int] = []
        previous = 1
        for stage, depth in enumerate(depths):
            narrow, stride, dilation = width * 2**stage, STRIDES[output_stride][stage], DILATIONS[output_stride][stage]
            blocks = []
            for index in range(depth):
                first = previous if contracted and index == 0 else dilation
                blocks.append(block(channels, narrow, stride if index == 0 else 1, first, slope))
                channels = narrow * block.expansion
            previous = dilation
            self.channels.append(channels)
            self.add_module(f"layer{stage + 1}", nn.ModuleList(blocks))
        self.output_stride, self.initialisation = output_stride, initialisation
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.momentum = momentum

    @staticmethod
    def block(kind: str) -> Any:
        """The class of the blocks, `basic` or `bottleneck`."""
        return BasicBlock if kind == "basic" else Bottleneck

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Pre-activation sums of the four stages."""
        if self.stem is not None:
            x = self.stem(images_BCHW)
        else:
            x = self.bn1(self.conv1(images_BCHW))
            x = self.activation(x) if self.active_stem else x
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        stages = []
        for number in range(1, 5):
            blocks = self.get_submodule(f"layer{number}")
            for index, block in enumerate(blocks.children()):
                x = block(x, self.activate if index else None)
            stages.append(x)
            x = self.activate(x)
        return stages

    def activate(self, sum_BCHW: Tensor) -> Tensor:
        """The activation at the end of a block. Never in place: the sum may be a tap."""
        if isinstance(self.activation, nn.Identity):
            return sum_BCHW
        return functional.leaky_relu(sum_BCHW, getattr(self.activation, "negative_slope", 0.0))

    def initialise(self) -> None:
        """Initialise the convolutions for training without published weights."""
        initialise_convolutions(self, self.initialisation, fan="fan_out")

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage, the stem with the first."""
        stem = [self.conv1, self.bn1] if self.stem is None else [self.stem]
        layers = [[self.get_submodule(f"layer{number}")] for number in range(1, 5)]
        return [[*stem, *layers[0]], *layers[1:]]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; returns the sum before activation."""

    expansion = 1

    def __init__(self, channels: int, narrow: int, stride: int, dilation: int, slope: float):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, narrow, 3, stride, dilation, dilation, bias=False)
        self.bn1 = BatchNorm(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, 1, dilation, dilation, bias=False)
        self.bn2 = BatchNorm(narrow)
        self.activation = activation(slope)
        self.downsample = _shortcut(channels, narrow, stride)

    def forward(self, x_BCHW: Tensor, before: Activation = None) -> Tensor:
        """(B, C, H, W) to (B, narrow, H / stride, W / stride).

        Args:
            before: applied to the input. It is part of the block so that a block that is computed again keeps one map.
        """
        x_BCHW = x_BCHW if before is None else before(x_BCHW)
        inner = self.activation(self.bn1(self.conv1(x_BCHW)))
        return self.second(inner) + self.downsample(x_BCHW)

    def second(self, x_BCHW: Tensor) -> Tensor:
        """The second convolution with its norm."""
        return self.bn2(self.conv2(x_BCHW))


class Bottleneck(nn.Module):
    """1x1, 3x3 (stride and dilation here), 1x1 convolutions and a shortcut; returns the sum before activation."""

    expansion = 4

    def __init__(self, channels: int, narrow: int, stride: int, dilation: int, slope: float):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.bn1 = BatchNorm(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, dilation, dilation, bias=False)
        self.bn2 = BatchNorm(narrow)
        self.conv3 = nn.Conv2d(narrow, narrow * self.expansion, 1, bias=False)
        self.bn3 = BatchNorm(narrow * self.expansion)
        self.activation = activation(slope)
        self.downsample = _shortcut(channels, narrow * self.expansion, stride)

    def forward(self, x_BCHW: Tensor, before: Activation = None) -> Tensor:
        """(B, C, H, W) to (B, 4 narrow, H / stride, W / stride).

        Args:
            before: applied to the input. It is part of the block so that a block that is computed again keeps one map.
        """
        x_BCHW = x_BCHW if before is None else before(x_BCHW)
        inner = self.activation(self.bn1(self.conv1(x_BCHW)))
        inner = self.activation(self.second(inner))
        return self.bn3(self.conv3(inner)) + self.downsample(x_BCHW)

    def second(self, x_BCHW: Tensor) -> Tensor:
        """The second convolution, 3x3, with its norm."""
        return self.bn2(self.conv2(x_BCHW))


def _deep_stem(width: int, slope: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, out, stride in ((3, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1)):
        layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), BatchNorm(out), activation(slope)]
    return nn.Sequential(*layers)


def _shortcut(channels: int, out: int, stride: int) -> nn.Module:
    if channels == out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), BatchNorm(out))

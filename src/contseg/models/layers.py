"""Layers shared by several heads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.normalization import BatchNorm, activation
from contseg.precision import precise


def conv_norm_act(channels: int, out: int, kernel: int = 1, dilation: int = 1, slope: float = 0.0) -> nn.Sequential:
    """Convolution without bias that keeps the size, batch norm, (leaky) ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, padding=padding, dilation=dilation, bias=False), BatchNorm(out), activation(slope)
    )


def resize(x_BCHW: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Resize bilinearly (corners not aligned) to (height, width), in float32 or better."""
    if tuple(x_BCHW.shape[2:]) == tuple(size) and not torch.compiler.is_exporting():  # an export has no size yet
        return precise(x_BCHW)
    return functional.interpolate(precise(x_BCHW), size, mode="bilinear", align_corners=False, antialias=antialias)


def padding_to(multiple: int, length: int) -> int:
    """How much a length lacks to the next multiple.

    Not `-length % multiple`, which is equal but makes expressions of an export too complicated for PyTorch to simplify.

    Example:
        >>> padding_to(4, 9), padding_to(4, 8)
        (3, 0)
    """
    return (length + multiple - 1) // multiple * multiple - length


def pyramid(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps (B, C_i, H_i, W_i) at the size of the second."""
    size = (maps[1].shape[2], maps[1].shape[3])
    return torch.cat([resize(one, size) for one in maps], dim=1)


class PPM(nn.Module):
    """Pyramid pooling (Zhao et al., CVPR 2017): the map and its averages over coarse grids, reduced by a 3x3.

    Args:
        channels, out: of input and output; each grid is reduced to `out` too.
        scales: cells per side of the grids.

    Example:
        >>> PPM(16, 8)(torch.zeros(2, 16, 6, 7)).shape
        torch.Size([2, 8, 6, 7])
    """

    def __init__(self, channels: int, out: int, scales: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        self.scales = scales
        self.branches = nn.ModuleList(conv_norm_act(channels, out) for _ in scales)
        self.bottleneck = conv_norm_act(channels + out * len(scales), out, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, H, W)."""
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        pooled = [
            resize(branch(functional.adaptive_avg_pool2d(x_BCHW, scale)), size)
            for branch, scale in zip(self.branches, self.scales, strict=True)
        ]
        return self.bottleneck(torch.cat([x_BCHW, *pooled], dim=1))


class ASPP(nn.Module):
    """Atrous pyramid pooling (Chen et al., 2017): convolutions of several dilations and an image average, reduced by a 3x3.

    Args:
        channels, out: of input and output; each branch has `out` channels too.
        dilations: of the branches; 1 is a 1x1 convolution, others are 3x3.

    Example:
        >>> ASPP(16, 8, (1, 2, 4))(torch.zeros(2, 16, 6, 7)).shape
        torch.Size([2, 8, 6, 7])
    """

    def __init__(self, channels: int, out: int, dilations: tuple[int, ...] = (1, 12, 24, 36)):
        super().__init__()
        self.branches = nn.ModuleList(conv_norm_act(channels, out, 1 if d == 1 else 3, d) for d in dilations)
        self.pooled = conv_norm_act(channels, out)
        self.bottleneck = conv_norm_act(out * (len(dilations) + 1), out, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, H, W)."""
        branches = [branch(x_BCHW) for branch in self.branches]
        pooled = self.pooled(functional.adaptive_avg_pool2d(x_BCHW, 1))
        return self.bottleneck(torch.cat([*branches, pooled.expand_as(branches[0])], dim=1))


class FeaturePyramid(nn.Module):
    """Top-down fusion of four maps (Lin et al., CVPR 2017; as in UperNet), concatenated at the size of the finest.

    Args:
        channels: of the three finer maps, finest first.
        width: channels of the laterals and of the coarsest map.
        out: channels of each of the three finer outputs.

    Example:
        >>> maps = [torch.zeros(2, 4, 16, 16), torch.zeros(2, 8, 8, 8), torch.zeros(2, 8, 4, 4)]
        >>> FeaturePyramid([4, 8, 8], 6, 5)(maps, torch.zeros(2, 6, 2, 2)).shape
        torch.Size([2, 21, 16, 16])
    """

    def __init__(self, channels: list[int], width: int, out: int):
        super().__init__()
        self.laterals = nn.ModuleList(conv_norm_act(count, width) for count in channels)
        self.outputs = nn.ModuleList(conv_norm_act(width, out, 3) for _ in channels)

    def forward(self, maps: list[Tensor], top_BCHW: Tensor) -> Tensor:
        """Three maps, finest first, and the coarsest: (B, 3 out + width, H, W)."""
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)] + [top_BCHW]
        for level in (3, 2, 1):
            finer = levels[level - 1]
            levels[level - 1] = finer + resize(levels[level], (finer.shape[2], finer.shape[3]))
        outputs = [convolution(x) for convolution, x in zip(self.outputs, levels, strict=False)] + [levels[3]]
        size = (outputs[0].shape[2], outputs[0].shape[3])
        return torch.cat([resize(x, size) for x in outputs], dim=1)


class DropPath(nn.Module):
    """Stochastic depth (Huang 2016): in training, zero a branch per image, and rescale otherwise to keep the mean.

    Args:
        probability: probability that an image's branch is zeroed, in [0, 1).

    Example:
        >>> DropPath(0.5).eval()(torch.ones(2, 3)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) to the same."""
        if not self.training or self.probability == 0:
            return x
        kept = torch.rand(len(x), device=x.device).ge(self.probability).to(x.dtype) / (1 - self.probability)
        return x * kept.view(-1, *[1] * (x.ndim - 1))

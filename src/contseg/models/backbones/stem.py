"""A patch embedding made of small convolutions, for vision transformers that start from random weights."""

import torch
from torch import Tensor, nn

from contseg.models.normalization import BatchNorm


class ResidualConvolutions(nn.Module):
    """Two 3x3 convolutions around which the input is added.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), BatchNorm(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), BatchNorm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        inside = torch.relu(self.bn1(self.conv1(x_BCHW)))
        return torch.relu(x_BCHW + self.bn2(self.conv2(inside)))


class ConvolutionalStem(nn.Sequential):
    """3x3 convolutions of stride 2 down to one vector per patch (Xiao et al., NeurIPS 2021), and residual ones after them.

    For training from random weights: shapes are found wherever they are in a patch, which a single convolution of the side
    of a patch has to learn for every place. Channels double with every stride and end at `width`.

    Args:
        patch: side of a patch in pixels, a power of two.
        width: channels of a token.
        depth: pairs of residual convolutions at the stride of the patches.

    Example:
        >>> ConvolutionalStem(8, 64)(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 64, 4, 6])
    """

    def __init__(self, patch: int, width: int, depth: int = 2):
        halvings = patch.bit_length() - 1
        layers: list[nn.Module] = []
        channels = 3
        for left in reversed(range(halvings)):
            wider = max(8, width >> left)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False), BatchNorm(wider), nn.ReLU()]
            channels = wider
        layers += [ResidualConvolutions(channels) for _ in range(depth)]
        super().__init__(*layers, nn.Conv2d(channels, width, 1))

"""A classifier whose weights are computed instead of learned: a fixed expansion, one 1x1 convolution, one background."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.classifier import GrowingClassifier
from contseg.models.options import ReadoutOptions
from contseg.precision import precise


class ReadoutClassifier(GrowingClassifier):
    """A growing classifier of 1x1 convolutions on a fixed map of the features.

    The buffers and the rows are set by `contseg.methods.gaussian`. It computes in float32 or better also under mixed
    precision, as discriminants are differences of large numbers.

    Args:
        channels: channels of the features.
        widths: outputs of each step; background, if there is one, is the first output.
        options: the fixed map, and how background is decided.

    Example:
        >>> classifier = ReadoutClassifier(8, [3], ReadoutOptions(expansion=16, centres=2))
        >>> classifier.grow(2, "random")
        >>> classifier(torch.zeros(1, 8, 4, 4)).shape, classifier.steps[1].in_channels
        (torch.Size([1, 5, 4, 4]), 16)
    """

    expansion: nn.Module | None
    centres: nn.Module | None
    distance: nn.Module | None

    def __init__(self, channels: int, widths: list[int], options: ReadoutOptions):
        inner = options.expansion or channels
        super().__init__(inner, widths)
        self.expansion = FixedConvolution(channels, inner) if options.expansion else None
        self.centres = FixedConvolution(inner, options.centres) if options.centres else None
        self.distance = FixedConvolution(inner, inner) if options.distance else None

    def forward(self, features_BCHW: Tensor, steps: slice = slice(None)) -> Tensor:
        """(B, channels, H, W) to (B, sum of widths, H, W).

        Args:
            steps: steps whose outputs to compute; with `centres` or `distance` these must include the first.
        """
        with torch.autocast(features_BCHW.device.type, enabled=False):
            phi = precise(features_BCHW)
            if self.expansion is not None:
                phi = self.expansion(phi).relu()
            logits = super().forward(phi, steps)
            if self.centres is None and self.distance is None:
                return logits
            background = logits[:, :1]
            if self.centres is not None:
                background = torch.maximum(background, self.centres(phi).amax(dim=1, keepdim=True))
            if self.distance is not None:
                background = background + self.distance(phi).square().sum(dim=1, keepdim=True) / 2
            return torch.cat([background, logits[:, 1:]], dim=1)


class FixedConvolution(nn.Module):
    """A 1x1 convolution whose weights are buffers: saved with the segmenter, and never trained.

    Args:
        channels, out: of input and output.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(out, channels, 1, 1))
        self.register_buffer("bias", torch.zeros(out))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, H, W)."""
        return functional.conv2d(x_BCHW, self.weight, self.bias)

"""Two parallel branches of convolution and norm that are mixed by channel and can be merged into one (RCIL)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from contseg.models.normalization import BatchNorm

FIRST, SECOND = 0.33, 0.66
"""Below the first bound a channel is that of branch 1, below the second that of branch 2, otherwise their mean."""


class BranchConv2d(nn.Conv2d):
    """A convolution whose bias is a buffer: 0 until a merge sets it, and never trained."""

    def __init__(self, *sizes: Any, **options: Any):
        super().__init__(*sizes, bias=False, **options)  # type: ignore[misc]
        del self._parameters["bias"]
        self.register_buffer("bias", self.weight.detach().new_zeros(self.out_channels))


def shape_of(convolution: nn.Conv2d) -> tuple[Any, ...]:
    """The arguments that make another convolution of the same shape: channels, kernel, stride, padding, dilation.

    Example:
        >>> shape_of(nn.Conv2d(2, 4, 3, padding=1))
        (2, 4, (3, 3), (1, 1), (1, 1), (1, 1))
    """
    like = convolution
    return like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding, like.dilation


@dataclass
class Branch:
    """Convolutions of one input whose outputs are concatenated, and the norm over them."""

    convolutions: Sequence[nn.Conv2d]
    norm: BatchNorm

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, all outputs, H', W')."""
        return self.norm(torch.cat([convolution(x_BCHW) for convolution in self.convolutions], dim=1))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift per output of one convolution without norm that computes the same in evaluation mode."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        biases = [
            convolution.weight.new_zeros(convolution.out_channels) if convolution.bias is None else convolution.bias
            for convolution in self.convolutions
        ]
        return scale, norm.bias + (torch.cat(biases) - norm.running_mean) * scale

    def forget_norm(self, bias: Tensor | float = 0.0) -> None:
        """Make the norm the identity in evaluation mode, plus a bias."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.weight.fill_(1.0)
        norm.bias.zero_().add_(bias)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)  # so that the divisor is 1, also after a file was read


class TwoBranches(nn.Module):
    """Base of a module with two branches of the same shape; a subclass defines `pair`.

    After `merge`, the first branch is a fixed convolution: its norm stays in evaluation mode.

    Attributes:
        first_parts: names of the modules of the first branch.
        merged: whether `merge` was called, on this module or on the one that it is a copy of.
    """

    first_parts: ClassVar[tuple[str, ...]]
    merged = False

    def pair(self) -> tuple[Branch, Branch]:
        """The first branch, into which `merge` writes, and the second, which continues to learn."""
        raise NotImplementedError

    def mix(self, x_BCHW: Tensor) -> Tensor:
        """Both branches of an input, mixed."""
        first, second = self.pair()
        return mixed(first(x_BCHW), second(x_BCHW), self.training)

    def train(self, mode: bool = True) -> "TwoBranches":
        """Set the mode; the norm of a merged branch stays in evaluation mode."""
        super().train(mode)
        if self.merged:
            self.pair()[0].norm.eval()
        return self

    @torch.no_grad()
    def merge(self, init: Literal["released", "preserving"] = "released") -> None:
        """Write the mean of both branches in evaluation mode into the first one, as a convolution with a bias.

        Args:
            init: `released` leaves the second branch as it is, so the module computes another function afterwards, a
                quarter of the first and three quarters of the second branch. `preserving` writes the merged convolution into
                both, so in evaluation mode the function stays.
        """
        first, second = self.pair()
        (scale_1, shift_1), (scale_2, shift_2) = first.folded(), second.folded()
        bias, start = (shift_1 + shift_2) / 2, 0
        for one, other in zip(first.convolutions, second.convolutions, strict=True):
            part = slice(start, start := start + one.out_channels)
            scaled = [scale[part, None, None, None] / 2 * each.weight for scale, each in ((scale_1, one), (scale_2, other))]
            one.weight.copy_(scaled[0] + scaled[1])
            assert one.bias is not None
            one.bias.copy_(bias[part])
            if init == "preserving":
                other.weight.copy_(one.weight)
        first.forget_norm()
        if init == "preserving":
            second.forget_norm(bias)
        self.merged = True
        self.train(self.training)


def mixed(first_BCHW: Tensor, second_BCHW: Tensor, training: bool) -> Tensor:
    """The mean of two branches; in training, each channel is one branch, the other, or the mean, with equal probability.

    A draw is shared by all images and pixels.

    Example:
        >>> mixed(torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), training=False).flatten()
        tensor([0.5000, 0.5000])
    """
    if not training:
        return (first_BCHW + second_BCHW) / 2
    # named, so that ranks and passes do not divide the draw among their images
    drawn = torch.rand((1, first_BCHW.shape[1], 1, 1), generator=torch.default_generator)
    share = torch.where(drawn < FIRST, 1.0, torch.where(drawn < SECOND, 0.0, 0.5)).to(first_BCHW)
    return share * first_BCHW + (1 - share) * second_BCHW

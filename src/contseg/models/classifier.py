"""A classifier that grows: one 1x1 convolution per step, their outputs side by side."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError

Start = Literal["background", "random", "unknown"]


class GrowingClassifier(nn.Module):
    """Logits from features by one 1x1 convolution (with bias) per step.

    Args:
        channels: of the features.
        widths: outputs of each step, background first of all.
        unknown: a first width of 1 stands before those of the steps, for the output "unknown".

    Example:
        >>> classifier = GrowingClassifier(8, [3])
        >>> classifier.grow(2, "random")
        >>> classifier(torch.zeros(1, 8, 4, 4)).shape, classifier.widths
        (torch.Size([1, 5, 4, 4]), [3, 2])
    """

    def __init__(self, channels: int, widths: list[int], unknown: bool = False):
        super().__init__()
        self.unknown = unknown
        self.steps = nn.ModuleList(nn.Conv2d(channels, width, 1) for width in widths)
        self.channels = channels

    @property
    def widths(self) -> list[int]:
        """Outputs of each step, after that of the unknown if there is one."""
        return [convolution.out_channels for convolution in self._convolutions()]

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, sum of widths, H, W)."""
        return torch.cat([convolution(features_BCHW) for convolution in self.steps], dim=1)

    @torch.no_grad()
    def grow(self, count: int, start: Start) -> None:
        """Add `count` outputs.

        `random` leaves every old logit bit-equal. `background` (MiB, eq. 10 and 11) shares the background's probability
        among background and the new classes: each new row is the background's, and its bias and the background's own
        become b_0 - log(count + 1). All old logits but the background's stay bit-equal, and the probability of each old
        class is unchanged. `unknown` copies the unknown's row (SSUL: what is learned now was unknown until now); every old
        logit stays bit-equal.

        Raises:
            ContsegError: `start` is something else, or `unknown` where there is none.
        """
        first = self._convolutions()[int(self.unknown)]
        new = nn.Conv2d(self.channels, count, 1).to(first.weight)
        if start == "background":
            new.weight.copy_(first.weight[:1].expand_as(new.weight))
            first.bias[0] -= math.log(count + 1)  # type: ignore[index]
            new.bias.fill_(float(first.bias[0]))  # type: ignore[index, union-attr]
        elif start == "unknown" and self.unknown:
            unknown = self._convolutions()[0]
            new.weight.copy_(unknown.weight.expand_as(new.weight))
            new.bias.copy_(unknown.bias.expand_as(new.bias))  # type: ignore[union-attr, arg-type]
        elif start != "random":
            known = "background, random and unknown" if self.unknown else "background and random"
            raise ContsegError(f"grow: cannot start new classes from '{start}'; this network has {known}")
        self.steps.append(new)

    def _convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.steps if isinstance(module, nn.Conv2d)]

"""A growing classifier: one small network per step, with concatenated outputs."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError
from contseg.models.normalization import BatchNorm

Start = Literal["auxiliary", "background", "branch", "random", "reserved", "unknown"]


class GrowingClassifier(nn.Module):
    """Logits from features by one 1x1 convolution (with bias) per step.

    Args:
        channels: channels of the features.
        widths: outputs of each step; background is the first output.
        unknown: the first width is 1, for the output "unknown"; background is the first output of the next width.
        hidden: each step has its own 3x3 convolution, norm and ReLU before its 1x1 (SSUL, IDEC, LAG).
        make: from a number of outputs to the convolution of a step; default: 1x1.

    Class attributes:
        taps: names of the classifier's own features, see `run`.

    Example:
        >>> classifier = GrowingClassifier(8, [3])
        >>> classifier.grow(2, "random")
        >>> classifier(torch.zeros(1, 8, 4, 4)).shape, classifier.widths
        (torch.Size([1, 5, 4, 4]), [3, 2])
    """

    taps: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        channels: int,
        widths: list[int],
        unknown: bool = False,
        hidden: bool = False,
        make: Callable[[int], nn.Conv2d] | None = None,
    ):
        super().__init__()
        self.unknown, self.hidden, self.channels = unknown, hidden, channels
        self._convolution = make or partial(nn.Conv2d, channels, kernel_size=1)
        self.steps = nn.ModuleList(self._make(width) for width in widths)
        self.later = nn.ModuleDict()

    def _make(self, width: int) -> nn.Module:
        if not self.hidden:
            return self._convolution(width)
        first, last = nn.Conv2d(self.channels, self.channels, 3, padding=1, bias=False), nn.Conv2d(self.channels, width, 1)
        for convolution in (first, last):
            nn.init.kaiming_normal_(convolution.weight)
        return nn.Sequential(first, BatchNorm(self.channels), nn.ReLU(inplace=True), last)

    @property
    def widths(self) -> list[int]:
        """Outputs of each step; the unknown output, if there is one, is an entry of its own in front."""
        return [_outputs(step).out_channels for step in self.steps]

    def forward(self, features_BCHW: Tensor, steps: slice = slice(None)) -> Tensor:
        """(B, channels, H, W) to (B, sum of widths, H, W).

        Args:
            steps: steps whose outputs to compute.
        """
        return torch.cat([step(features_BCHW) for step in self.steps[steps]], dim=1)

    def of_vectors(self, features_NC: Tensor, steps: slice = slice(None)) -> Tensor:
        """Logits of feature vectors that belong to no image, such as replayed ones: (N, channels) to (N, outputs).

        Args:
            steps: steps whose outputs to compute.

        Raises:
            ContsegError: the classifier reads neighbouring pixels (`hidden`).

        Example:
            >>> GrowingClassifier(8, [3, 2]).of_vectors(torch.zeros(7, 8), steps=slice(-1, None)).shape
            torch.Size([7, 2])
        """
        if self.hidden:
            raise ContsegError("classifier: has a 3x3 convolution per step, so it cannot be applied to single vectors")
        return self(features_NC[:, :, None, None], steps)[:, :, 0, 0]

    def run(self, features_BCHW: Tensor, taps: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and those of the classifier's own features that are among `taps`; by default it has none."""
        return self(features_BCHW), {}

    def reserve(self, widths: Sequence[int]) -> None:
        """Make the convolutions of later steps now, with random weights, in place of those that were reserved before.

        They are no outputs: `later_logits` computes theirs, and `grow` with start `reserved` makes the next one a step.

        Example:
            >>> classifier = GrowingClassifier(8, [3])
            >>> classifier.reserve([2, 1])
            >>> features = torch.zeros(1, 8, 4, 4)
            >>> classifier(features).shape[1], classifier.later_logits(features).shape[1]
            (3, 3)
            >>> classifier.grow(2, "reserved")
            >>> classifier(features).shape[1], classifier.later_logits(features).shape[1]
            (5, 1)
        """
        first, like = len(self.steps), _outputs(self.steps[0]).weight
        self.later = nn.ModuleDict({str(first + place): self._make(width) for place, width in enumerate(widths)}).to(like)

    def later_logits(self, features_BCHW: Tensor) -> Tensor:
        """Logits of the classes of later steps, (B, number of reserved outputs, H, W)."""
        empty = features_BCHW[:, :0]
        return torch.cat([empty, *(step(features_BCHW) for step in self.later.values())], dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *more: Any) -> None:
        """Reserved convolutions are made as a file has them."""
        weights = {name.removeprefix(f"{prefix}later.").split(".")[0]: value for name, value in state_dict.items()
                   if name.startswith(f"{prefix}later.") and name.endswith("bias") and value.ndim == 1}  # fmt: skip
        if weights.keys() != self.later.keys():
            like = _outputs(self.steps[0]).weight
            self.later = nn.ModuleDict({step: self._make(len(bias)) for step, bias in weights.items()}).to(like)
        super()._load_from_state_dict(state_dict, prefix, *more)

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Freeze what no loss reads when only these taps are computed; here nothing."""

    @torch.no_grad()
    def grow(self, count: int, start: Start) -> None:
        """Add `count` outputs.

        `random` keeps every old logit bit-equal. `background` (MiB, eq. 10 and 11) shares the probability of background
        between background and the new classes: each new row is a copy of background's, and the biases of both become
        b_0 - log(count + 1). All old logits except background's stay bit-equal, and the probability of each old class is
        unchanged. `unknown` copies the unknown row (SSUL: the new classes were unknown so far); every old logit stays
        bit-equal. `hidden` layers of background or unknown are copied too. `reserved` takes the convolution that `reserve`
        made for this step, and is `random` without one; old logits stay bit-equal.

        Raises:
            ContsegError: `start` is invalid, `unknown` without an unknown output, or another number was reserved.
        """
        place = str(len(self.steps))
        if place in self.later and (reserved := self.later.pop(place)) is not None and start == "reserved":
            if _outputs(reserved).out_channels != count:
                raise ContsegError(
                    f"grow: {_outputs(reserved).out_channels} outputs were reserved for this step, which adds {count}; keep"
                    " the split that the segmenter was trained with"
                )
            self.steps.append(reserved)
            return
        new = self._make(count).to(_outputs(self.steps[0]).weight)
        if start == "background":
            background = self.steps[int(self.unknown)]
            _outputs(background).bias[0] -= math.log(count + 1)  # type: ignore[index]
            _copy_first_row(background, new)
        elif start == "unknown" and self.unknown:
            _copy_first_row(self.steps[0], new)
        elif start not in ("random", "reserved"):
            known = "background, random and unknown" if self.unknown else "background and random"
            raise ContsegError(f"grow: cannot start new classes from '{start}'; this network has {known}")
        self.steps.append(new)


def _outputs(step: nn.Module) -> nn.Conv2d:
    """The convolution that computes the logits of a step."""
    last = step[3] if isinstance(step, nn.Sequential) else step
    assert isinstance(last, nn.Conv2d)
    return last


def _copy_first_row(source: nn.Module, new: nn.Module) -> None:
    """Copy the first output of `source` to every output of `new`, and hidden layers with their statistics."""
    for name, value in new.state_dict().items():
        given = source.state_dict()[name]
        if name in ("weight", "bias", "first_bias", "3.weight", "3.bias"):
            value.copy_(given[:1].expand_as(value))
        elif not name.endswith("num_batches_tracked"):
            value.copy_(given)

"""A classifier whose steps each lower background by a residual of their own (BARM)."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError
from contseg.losses.background_residual import merged
from contseg.models.classifier import GrowingClassifier, Start
from contseg.models.names import RESIDUAL_TAPS

BRANCH = ("0.weight", "1.weight", "1.bias")
"""What a new branch takes of the first one: its convolution and the gains of its norm."""


class ResidualClassifier(GrowingClassifier):
    """One branch per step, a 3x3 convolution, norm and ReLU, with a 1x1 convolution; and one background for all steps.

    The 1x1 of step 0 has background and its classes, that of a later step a residual and its classes. See `merged` for
    background, which differs between training and evaluation. The taps `branches`, the outputs of all 3x3 (B, steps x
    channels, h, w), and `raw_logits`, those of all 1x1 (B, K + steps - 1, h, w), have one step after the other.

    Args:
        channels: channels of the features and of each branch.
        widths: outputs of each step, residuals not counted; background is the first output.

    Example:
        >>> classifier = ResidualClassifier(8, [3])
        >>> classifier.grow(2, "branch")
        >>> logits, own = classifier.run(torch.zeros(1, 8, 4, 4), ("branches", "raw_logits"))
        >>> classifier.widths, logits.shape[1], {name: value.shape[1] for name, value in own.items()}
        ([3, 2], 5, {'branches': 16, 'raw_logits': 6})
    """

    taps = RESIDUAL_TAPS

    def __init__(self, channels: int, widths: list[int]):
        first, *others = widths
        super().__init__(channels, [first, *(width + 1 for width in others)], hidden=True)

    @property
    def widths(self) -> list[int]:
        """Outputs of each step, residuals not counted."""
        first, *others = super().widths
        return [first, *(width - 1 for width in others)]

    @property
    def raw_widths(self) -> list[int]:
        """Outputs of each step, residuals counted."""
        return super().widths

    def run(self, features_BCHW: Tensor, taps: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and the requested ones of the classifier's own taps."""
        branches, raw = [], []
        for convolution, norm, activation, last in map(_layers, self.steps):
            branches.append(activation(norm(convolution(features_BCHW))))
            raw.append(last(branches[-1]))
        parts = dict(zip(RESIDUAL_TAPS, (branches, raw), strict=True))
        return merged(raw, self.training), {tap: torch.cat(parts[tap], dim=1) for tap in RESIDUAL_TAPS if tap in taps}

    def forward(self, features_BCHW: Tensor, steps: slice = slice(None)) -> Tensor:
        """(B, channels, H, W) to (B, sum of widths, H, W).

        Args:
            steps: steps whose outputs to return; background needs all of them, so all are computed.
        """
        logits, _ = self.run(features_BCHW, ())
        return torch.cat(logits.split(self.widths, dim=1)[steps], dim=1)

    @torch.no_grad()
    def grow(self, count: int, start: Start) -> None:
        """Add `count` outputs and a residual.

        `branch` starts the new branch with the convolution and the gains of step 0's, and new statistics of its norm;
        `random` at random. The new 1x1 is random. All old logits stay bit-equal except background's, which the new residual
        may lower.

        Raises:
            ContsegError: another start.
        """
        if start not in ("branch", "random"):
            raise ContsegError(
                f"grow: cannot start new classes from '{start}'; this network has a branch per step, and branch and random"
            )
        super().grow(count + 1, "random")
        if start == "branch":
            first = self.steps[0].state_dict()
            for name, value in self.steps[-1].state_dict().items():
                if name in BRANCH:
                    value.copy_(first[name])


def _layers(step: nn.Module) -> Iterator[nn.Module]:
    """Convolution, norm, activation and 1x1 of a step."""
    assert isinstance(step, nn.Sequential)
    return iter(step)

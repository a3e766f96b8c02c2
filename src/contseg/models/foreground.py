"""A classifier without an output for background, whose logit is the constant 0."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError
from contseg.models.classifier import GrowingClassifier, Start


class ForegroundClassifier(GrowingClassifier):
    """One classifier per class and none for background (DKD, STAR, Adapter).

    Channel 0 of the logits is background and always 0, so with decision `sigmoid` a pixel is background where no class has
    a score over one half.

    Args:
        channels: channels of the features.
        widths: outputs of each step; the first includes background.
        auxiliary: a further 1x1 convolution with one output (DKD). It reads features without a gradient into them, is
            trained to be negative everywhere, and new classes start from it. It is no class and not among the logits.

    Example:
        >>> classifier = ForegroundClassifier(8, [3], auxiliary=True)
        >>> classifier.grow(2, "auxiliary")
        >>> logits = classifier(torch.ones(1, 8, 4, 4))
        >>> logits.shape, classifier.widths, logits[:, 0].abs().max()
        (torch.Size([1, 5, 4, 4]), [3, 2], tensor(0., grad_fn=<MaxBackward1>))
    """

    def __init__(self, channels: int, widths: list[int], auxiliary: bool = False):
        super().__init__(channels, [widths[0] - 1, *widths[1:]])
        self.auxiliary = self._make(1) if auxiliary else None

    def _make(self, width: int) -> nn.Module:
        convolution = super()._make(width)
        nn.init.kaiming_normal_(convolution.get_parameter("weight"))
        return convolution

    @property
    def widths(self) -> list[int]:
        """Outputs of each step; the first includes background."""
        first, *others = super().widths
        return [first + 1, *others]

    def forward(self, features_BCHW: Tensor, steps: slice = slice(None)) -> Tensor:
        """(B, channels, H, W) to (B, sum of widths, H, W); channel 0 is background's 0 if `steps` has step 0."""
        logits = super().forward(features_BCHW, steps)
        if 0 not in range(len(self.steps))[steps]:
            return logits
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)

    def run(self, features_BCHW: Tensor, taps: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and with tap `auxiliary` those of the auxiliary classifier."""
        return self(features_BCHW), {"auxiliary": self.auxiliary_logits(features_BCHW)} if "auxiliary" in taps else {}

    def auxiliary_logits(self, features_BCHW: Tensor) -> Tensor:
        """The output of the auxiliary classifier, (B, 1, H, W), without a gradient into the features."""
        assert self.auxiliary is not None
        return self.auxiliary(features_BCHW.detach())

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Freeze the auxiliary classifier if its tap is not computed."""
        if self.auxiliary is not None and "auxiliary" not in taps:
            self.auxiliary.requires_grad_(False)

    @torch.no_grad()
    def grow(self, count: int, start: Start) -> None:
        """Add `count` outputs, at `random` or each as a copy of the `auxiliary` classifier; old logits stay bit-equal.

        Raises:
            ContsegError: another start, or `auxiliary` without an auxiliary classifier.
        """
        if start not in ("random", *(["auxiliary"] if self.auxiliary is not None else [])):
            known = "random" if self.auxiliary is None else "auxiliary and random"
            raise ContsegError(
                f"grow: cannot start new classes from '{start}'; this network has no output for background, but {known}"
            )
        super().grow(count, "random")
        if start == "auxiliary":
            assert self.auxiliary is not None
            for name, value in self.steps[-1].named_parameters():
                value.copy_(self.auxiliary.get_parameter(name).expand_as(value))

"""What every head is."""

from torch import Tensor, nn


class Head(nn.Module):
    """From stages of a backbone to what the classifier reads.

    Attributes:
        uses: the stages that `forward` is given, activated, in this order (0 is the first).
        width: channels of the result.
    """

    uses: tuple[int, ...]
    width: int

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) of the stages in `uses` to (B, width, H, W)."""
        raise TypeError(f"{type(self).__name__} is no whole head: it has no forward")

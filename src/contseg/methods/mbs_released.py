"""MBS as its released code computes it."""

from dataclasses import dataclass

from torch import Tensor

from contseg.methods.mbs import MBS


@dataclass(frozen=True)
class MBSReleased(MBS):
    """In the released code, tokens that are exactly orthogonal do not count in the mean of the cosines."""

    variant = "released"

    def overlap(self, cosines: Tensor) -> Tensor:
        """The mean over pairs whose cosine is not 0; 0 if there are none."""
        there = cosines != 0
        return cosines.sum() / there.sum().clamp(min=1)

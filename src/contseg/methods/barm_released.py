"""BARM as its released code computes it."""

from dataclasses import dataclass
from typing import ClassVar

from contseg.methods.barm import BARM


@dataclass(frozen=True)
class BARMReleased(BARM):
    """A new branch takes the convolution and the gains of step 0's branch, but not its statistics: mean 0 and variance 1.

    Norms are frozen in later steps, so it keeps these. The released code also starts two processes whose gradients are not
    averaged, each with half of the images; a run here is one of them, with all images.
    """

    variant = "released"

    copies_statistics: ClassVar[bool] = False

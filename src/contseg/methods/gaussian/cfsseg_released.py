"""CFSSeg as its released code computes it."""

from dataclasses import dataclass

from contseg.methods.gaussian.cfsseg import CFSSeg
from contseg.methods.gaussian.random_features import Draw
from contseg.options import ChannelsOrNone, Share


@dataclass(frozen=True)
class CFSSegReleased(CFSSeg):
    """The expansion is uniform, of 8196 dimensions; new columns start at random; step 1 has no pseudo-labels.

    A column starts at 1e-3 N(0, 1), which never fades, see `RidgeSums.grown`. The released code adds a column when the first
    batch with its label comes; here all columns of a step start before its first image, so that results do not depend on the
    order of the images. Its images are randomly cropped; here every image is used once, as it is.
    """

    expansion: ChannelsOrNone = 8196
    draw: Draw = "uniform"
    threshold: Share | None = 0.7

    variant = "released"

    first_pseudo_step = 2
    column_deviation = 1e-3

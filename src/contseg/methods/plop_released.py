"""PLOP as its released code computes it."""

import math
from dataclasses import dataclass

from torch import Tensor

from contseg.losses.confidence import mean_entropy, released_median
from contseg.methods.plop import PLOP


@dataclass(frozen=True)
class PLOPReleased(PLOP):
    """Entropy *averaged* over classes and divided by a second logarithm; a scan of 100 bins instead of the median.

    Thresholds are at least `floor`, and regions are square. As far as is known, the published numbers were obtained in this
    way. With 50 old classes or more it accepts every background pixel.
    """

    variant = "released"
    first_step_is_plain = True
    regions = "square"
    empty_weight = 0.0

    @property
    def histogram_bins(self) -> int:
        """100."""
        return 100

    def uncertainty(self, probabilities_BOHW: Tensor, seen_count: int) -> Tensor:
        """Mean entropy, divided by log(seen classes)."""
        return mean_entropy(probabilities_BOHW) / math.log(seen_count)

    def thresholds(self, histogram_KM: Tensor) -> Tensor:
        """Released median, at least `floor`."""
        return released_median(histogram_KM).clamp(min=self.floor)

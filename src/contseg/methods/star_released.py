"""STAR as its released code computes it."""

from dataclasses import dataclass

from torch import Tensor

from contseg.methods.feature_statistics import ClassSums
from contseg.methods.star import STAR


@dataclass(frozen=True)
class STARReleased(STAR):
    """What the released code computes differently.

    * Directions of the new class number j of a later step are compared with the prototype of the *old* class number j, so
      its deviations are far too large. The published weights were trained so.
    * The norm of a drawn feature is drawn anew for each of its elements.
    * The teacher sees a class where its *logit* is above 0.5, which is a score of 0.62; the decision at test is at a score
      of 0.5.
    * Pixels without a label (255, borders) are negatives of every class, and the mean is over all pixels.

    A mean over nothing is 0 here; theirs is not a number, and gradient scaling then leaves the update out.
    """

    variant = "released"

    void_is_negative = True
    threshold = 0.5

    def length_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """A draw for each element."""
        return shape

    def noise(self, sums: ClassSums, prototypes_KD: Tensor) -> Tensor:
        """Deviations from the first rows of all prototypes, which are those of old classes in later steps."""
        return sums.noise(prototypes_KD[: sums.count])

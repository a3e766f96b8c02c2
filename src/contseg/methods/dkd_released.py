"""DKD as its released code computes it."""

from dataclasses import dataclass

from contseg.methods.dkd import DKD


@dataclass(frozen=True)
class DKDReleased(DKD):
    """The released code does not ignore pixels without a label (255, such as borders of objects in VOC).

    They are negatives for every class of the step, and the mean is over all pixels.
    """

    variant = "released"

    void_is_negative = True

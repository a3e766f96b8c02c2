"""A Gaussian head on several maps of the network: the default for extending a model."""

from dataclasses import dataclass

from contseg.methods.gaussian.gaussian import Gaussian
from contseg.methods.gaussian.readout import Prior
from contseg.models.options import ReadoutTap
from contseg.options import ChannelsOrNone


@dataclass(frozen=True)
class Pyramid(Gaussian):
    """The Gaussian head on stages 1 to 3 and the head at once (tap `pyramid`), with a covariance for each of them.

    The head of a network is trained to separate the classes of step 0, and drops what later classes need; the stages keep
    it. Stage 4 is left out: the head is computed from it, and its many channels need more images than a small step has. The
    score of a class is the mean of the discriminants of the four maps, each divided by its number of channels
    (`Features.parts`). The maps count as independent: a covariance between all of them has more numbers than a step with
    few images can support. No random expansion is needed. Frequent classes have a higher prior.

    `docs/frontier.md` compares it with the other methods.

    Example:
        >>> Pyramid().tap, Pyramid().expansion, Pyramid().prior
        ('pyramid', 0, 'counts')
    """

    name = "pyramid"
    learns = ("pixels",)
    first_step_is_plain = True  # not inherited

    tap: ReadoutTap = "pyramid"
    expansion: ChannelsOrNone = 0
    prior: Prior = "counts"

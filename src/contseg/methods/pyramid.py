"""A Gaussian head on every map of the network: the default for extending a model."""

from dataclasses import dataclass
from typing import Literal

from contseg.methods.gaussian.gaussian import Gaussian
from contseg.methods.gaussian.readout import Prior
from contseg.models.options import ReadoutTap


@dataclass(frozen=True)
class Pyramid(Gaussian):
    """The Gaussian head on all stages and the head at once (tap `pyramid`), with a covariance for each of them.

    The head of a network is trained to separate the classes of step 0, and drops what later classes need; the stages keep
    it. The score of a class is the mean of the discriminants of the five maps, each divided by its number of channels
    (`Features.parts`). The maps count as independent: a covariance between all of them has more numbers than a step with
    few images can support. No random expansion is needed. Frequent classes have a higher prior.

    `docs/frontier.md` compares it with the other methods.

    Example:
        >>> Pyramid().tap, Pyramid().expansion, Pyramid().prior
        ('pyramid', 0, 'counts')
    """

    name = "pyramid"
    first_step_is_plain = True  # not inherited

    tap: ReadoutTap = "pyramid"
    expansion: int = 0
    rho: float | Literal["auto"] = 0.1
    prior: Prior = "counts"

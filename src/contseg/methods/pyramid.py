"""Gaussian head on all stages of the backbone: the default for extending a model."""

from dataclasses import dataclass
from typing import Literal

from contseg.methods.gaussian.gaussian import Gaussian
from contseg.methods.gaussian.readout import Prior
from contseg.models.options import ReadoutTap


@dataclass(frozen=True)
class Pyramid(Gaussian):
    """The Gaussian head with other defaults: it reads all stages at once, and frequent classes have a higher prior.

    The head of a network is trained to separate the classes of step 0 and drops what later classes need. The stages keep it:
    early ones separate textures, late ones shapes and contexts. The linear discriminant weights them by their within-class
    covariance. No random expansion is needed, as the pyramid has enough dimensions.

    `docs/frontier.md` compares it with the other methods and shows what else was tried.

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

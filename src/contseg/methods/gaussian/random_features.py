"""The features of CFSSeg: a random expansion of a frozen map, without standardisation."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from contseg.methods.gaussian.features import Features
from contseg.models.options import ReadoutTap

Draw = Literal["normal", "uniform"]
VALUES = 2**25
"""Numbers of phi that are computed at once: 256 MiB in float64."""


@dataclass(frozen=True, eq=False)
class RandomFeatures(Features):
    """phi = relu(E g), without bias; without an expansion, phi = g.

    The release draws E_ij ~ U(-1/sqrt(d), 1/sqrt(d)), the paper from a normal distribution of unknown deviation. `normal`
    has that of the uniform one, 1/sqrt(3 d), because the ridge only means something together with the scale of phi. E is
    drawn from the seed and rounded to float32, so that the sums and the network, which stores it, have the same matrix.

    Args:
        draw: the distribution of E.
        mean, std: 0 and 1; the other arguments as of `Features`.

    Example:
        >>> features = RandomFeatures.drawn("head", 4, expansion=6)
        >>> features(torch.ones(10, 4, dtype=torch.float64)).shape, features.width
        (torch.Size([10, 6]), 6)
    """

    draw: Draw = "normal"

    @classmethod
    def drawn(
        cls, tap: ReadoutTap, channels: int, expansion: int = 0, seed: int = 0, draw: Draw = "normal"
    ) -> "RandomFeatures":
        """The features of a map of some channels, on CPU."""
        mean = torch.zeros(channels, dtype=torch.float64)
        return cls(tap, mean, torch.ones_like(mean), expansion, seed, draw=draw)

    @property
    def cells(self) -> int:
        """Cells that are expanded at once."""
        return VALUES // self.width

    @cached_property
    def _drawn(self) -> tuple[Tensor, Tensor]:
        """E, and 0."""
        random, bound = np.random.RandomState(self.seed), 1 / math.sqrt(len(self.mean))  # its stream never changes
        shape = (self.expansion, len(self.mean))
        if self.draw == "uniform":
            values = random.uniform(-bound, bound, shape)
        else:
            values = random.standard_normal(shape) * (bound / math.sqrt(3))
        weight = torch.from_numpy(values.astype(np.float32))
        return weight.to(self.mean), torch.zeros(self.expansion).to(self.mean)

    def same_as(self, other: Features) -> bool:
        """Whether both are the same map, so that their sums can be added."""
        return isinstance(other, RandomFeatures) and self.draw == other.draw and super().same_as(other)

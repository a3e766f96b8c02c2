"""Adapter as its released code computes it."""

from dataclasses import dataclass

import torch

from contseg.methods.adapter import Adapter
from contseg.methods.star_released import STARReleased


@dataclass(frozen=True)
class AdapterReleased(STARReleased, Adapter):
    """The differences of `STARReleased`; and prototypes do not move, as the call is commented out.

    With `compensation`, they move as its function computes it: the share of sure positions has no limit.
    """

    compensation: bool = False

    largest = torch.inf

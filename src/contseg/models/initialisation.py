"""How convolutions start where no published weights are loaded."""

from typing import Literal

import torch
from torch import nn

from contseg.models.names import Initialisation


@torch.no_grad()
def initialise_convolutions(
    module: nn.Module, kind: Initialisation, slope: float = 0.0, fan: Literal["fan_in", "fan_out"] = "fan_in"
) -> None:
    """Draw the weights of all convolutions below a module.

    `torch` keeps PyTorch's default, uniform in +-1 / sqrt(fan in), which the modules already have. Under batch norm it
    trains small networks several points better than `he`, whose larger weights turn less in equal steps.

    Args:
        kind: `torch`; `he`, normal with variance 2 / fan (He et al., ICCV 2015); `xavier`, normal with variance
            gain^2 2 / (fan in + fan out) (Glorot and Bengio, AISTATS 2010).
        slope: of the leaky ReLU that follows, for the gain of `xavier`; 0 is ReLU, 1 is none.
        fan: the fan that `he` divides by.

    Example:
        >>> layer = nn.Conv2d(64, 64, 3)
        >>> deviations = []
        >>> for kind in ("torch", "he", "xavier"):
        ...     initialise_convolutions(layer, kind)
        ...     deviations.append(round(layer.weight.std().item(), 2))
        >>> deviations
        [0.02, 0.06, 0.06]
    """
    for part in module.modules():
        if not isinstance(part, nn.Conv2d) or kind == "torch":
            continue
        if kind == "he":
            nn.init.kaiming_normal_(part.weight, mode=fan, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(part.weight, nn.init.calculate_gain("leaky_relu", slope))

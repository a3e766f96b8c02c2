"""Initial weights of convolutions without published weights."""

from typing import Literal

import torch
from torch import nn

from contseg.models.names import Initialisation


@torch.no_grad()
def initialise_convolutions(
    module: nn.Module, kind: Initialisation, slope: float = 0.0, fan: Literal["fan_in", "fan_out"] = "fan_in"
) -> None:
    """Initialise the weights of all convolutions of a module.

    `torch` keeps PyTorch's default, uniform in +-1 / sqrt(fan in). With batch norm, small networks train several points
    better with it than with `he`, whose larger weights change direction less per update.

    Args:
        kind: `torch`; `he`, normal with variance 2 / fan (He et al., ICCV 2015); `xavier`, normal with variance
            gain^2 2 / (fan in + fan out) (Glorot and Bengio, AISTATS 2010).
        slope: of the leaky ReLU that follows, for the gain of `xavier`; 0 is ReLU, 1 the identity.
        fan: the fan in the variance of `he`.

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

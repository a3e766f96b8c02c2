"""In which precision losses compute."""

import torch
from torch import Tensor


def precise(tensor: Tensor) -> Tensor:
    """A tensor in float32 or better, as sums over many pixels need it under mixed precision.

    Example:
        >>> precise(torch.zeros(1, dtype=torch.bfloat16)).dtype, precise(torch.zeros(1, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

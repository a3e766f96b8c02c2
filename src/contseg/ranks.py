"""The processes of a distributed run, as methods, losses and models see them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """What the processes of a run exchange; with one process both functions are the identity.

    Args:
        sum: tensor to its sum over ranks; follows gradients.
        gather: tensor (B, ...) to all ranks' (W * B, ...), in rank order; follows gradients.
        rank, count: this process and how many there are.

    Example:
        >>> import torch
        >>> Ranks().sum(torch.tensor(3)), Ranks().count
        (tensor(3), 1)
    """

    sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    rank: int = 0
    count: int = 1

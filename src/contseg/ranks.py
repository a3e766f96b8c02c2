"""Sums and gathers over the processes of a distributed run, for methods, losses and models."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Communication between the processes of a run; with one process both functions are the identity.

    Args:
        sum: tensor to its sum over ranks; differentiable.
        gather: tensor (B, ...) to those of all W ranks in order, (W * B, ...); differentiable.
        rank: index of this process.
        count: number of processes, W.

    Example:
        >>> import torch
        >>> Ranks().sum(torch.tensor(3)), Ranks().count
        (tensor(3), 1)
    """

    sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    rank: int = 0
    count: int = 1


ALONE = Ranks()
"""One process."""

"""The precision of losses: at least float32, whatever the precision of the network."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float32 or better, which sums over many pixels need under mixed precision.

    Example:
        >>> precise(torch.zeros(1, dtype=torch.bfloat16)).dtype, precise(torch.zeros(1, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def precisely(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to apply `precise` to its half-precision arguments, also to those in lists.

    In fp16 the square of 300 is infinite, and the difference of two equal maps may not be 0 if only one of them was
    converted. Float32 and float64 tensors, labels and masks are passed unchanged.

    Example:
        >>> square = precisely(torch.square)
        >>> square(torch.full((1,), 300.0, dtype=torch.float16))
        tensor([90000.])
    """

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*map(_argument, args), **{name: _argument(value) for name, value in kwargs.items()})

    return computed


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return precise(value) if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return [_argument(item) for item in value]
    return value

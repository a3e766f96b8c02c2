"""Distances of two squared maps by averages over windows and over channels, in parts that a processor cache holds.

With D = old^2 - new^2 and averages P D, the distance is the norm of P D per image, and its gradient by D is P' P D over the
norm. Both passes work on parts of D, so neither D nor an average of it is in memory as a whole.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from contseg.losses.pooled import channel_parts

CHUNK = 1 << 17
"""Numbers of a map that are worked on at a time."""


def window_distances(old_BCHW: Tensor, new_BCHW: Tensor, windows: tuple[int, ...]) -> Tensor:
    """Norms of the difference of squared maps that are averaged over windows, (len(windows), B).

    Windows slide by one pixel over a map with half a window of zeros around it, which are counted. Gradients reach `new`,
    once; none reach `old`.

    Args:
        old_BCHW, new_BCHW: maps in float32 or better.
        windows: sides of the windows, in pixels.

    Example:
        >>> window_distances(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), (2,))
        tensor([[1.5000]])
    """
    return _OverWindows.apply(old_BCHW, new_BCHW, windows)


def neighbour_distance(old_BCHW: Tensor, new_BCHW: Tensor) -> Tensor:
    """Norms of the difference of squared maps that are averaged over three neighbouring channels, (1, B).

    There is a channel of zeros before the first and after the last one. Gradients as with `window_distances`.

    Example:
        >>> neighbour_distance(torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        tensor([[2.3570]])
    """
    return _OverChannels.apply(old_BCHW, new_BCHW, (3,))


def box_sums(x: Tensor, side: int, dim: int, known: dict[int, Tensor] | None = None) -> Tensor:
    """Sums of `side` neighbours along a dimension, which becomes shorter by `side` - 1.

    A sum of many is one of two shorter sums, so that 24 neighbours are five additions.

    Args:
        known: sums of the same x by side, shared between calls.

    Example:
        >>> box_sums(torch.tensor([1.0, 2.0, 3.0, 4.0]), 3, dim=0)
        tensor([6., 9.])
    """
    known = {} if known is None else known
    if side == 1:
        return x
    if side not in known:
        first = 1 << ((side - 1).bit_length() - 1)  # the largest power of two below
        length = x.shape[dim] - side + 1
        left, right = box_sums(x, first, dim, known), box_sums(x, side - first, dim, known)
        known[side] = left.narrow(dim, 0, length) + right.narrow(dim, first, length)
    return known[side]


class _Distances(torch.autograd.Function):
    """Norms per image of several averages of a difference; a subclass defines the averages."""

    parts: ClassVar[Any]
    averages: ClassVar[Any]
    spread: ClassVar[Any]

    @classmethod
    def forward(cls, ctx: Any, old: Tensor, new: Tensor, sides: tuple[int, ...]) -> Tensor:
        squares = new.new_zeros((len(sides), len(new)))
        for image, part in cls.parts(new):
            for number, average in enumerate(cls.averages(_difference(old[image][part], new[image][part]), sides)):
                squares[number, image] += average.flatten().dot(average.flatten())
        distance = squares.sqrt()
        ctx.save_for_backward(old, new, distance)
        ctx.sides, ctx.kind = sides, cls
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (old, new, distance), kind = ctx.saved_tensors, ctx.kind
        factors = (-2 * gradient / distance).where(distance != 0, 0.0)  # as the gradient of a norm of 0
        result = torch.empty_like(new)
        for image, part in kind.parts(new):
            total = new.new_zeros(())
            averages = kind.averages(_difference(old[image][part], new[image][part]), ctx.sides)
            for factor, side, average in zip(factors[:, image], ctx.sides, averages, strict=True):
                spread = kind.spread(average, side).mul_(factor)
                total = spread.add_(total)
            torch.mul(total, new[image][part], out=result[image][part])
        return None, result, None


class _OverWindows(_Distances):
    @staticmethod
    def parts(map_BCHW: Tensor) -> Iterator[tuple[int, Any]]:
        """Images, and some of their channels at a time."""
        return channel_parts(map_BCHW, CHUNK)

    @staticmethod
    def averages(x_CHW: Tensor, sides: tuple[int, ...]) -> Iterator[Tensor]:
        """The averages of a part over windows of each side."""
        widest = max(sides) // 2
        padded = functional.pad(x_CHW, (widest, widest))
        sums: dict[int, Tensor] = {}
        for side in sides:
            half = side // 2
            over_columns = box_sums(padded, side, -1, sums)
            count = x_CHW.shape[-1] + 2 * half - side + 1
            tall = functional.pad(over_columns.narrow(-1, widest - half, count), (0, 0, half, half))
            yield box_sums(tall, side, -2) / side**2

    @staticmethod
    def spread(averages_CHW: Tensor, side: int) -> Tensor:
        """The transpose of an average: for each pixel, the windows that contain it."""
        rest = side - 1 - side // 2
        wide = functional.pad(averages_CHW, (rest, rest, rest, rest))
        return box_sums(box_sums(wide, side, -2), side, -1) / side**2


class _OverChannels(_Distances):
    @staticmethod
    def parts(map_BCHW: Tensor) -> Iterator[tuple[int, Any]]:
        """Images, and some of their rows at a time."""
        return ((image, (slice(None), rows)) for image, rows in channel_parts(map_BCHW.transpose(1, 2), CHUNK))

    @staticmethod
    def averages(x_CHW: Tensor, sides: tuple[int, ...]) -> Iterator[Tensor]:
        """The averages over a channel and its neighbours."""
        total = x_CHW.clone()
        total[1:] += x_CHW[:-1]
        total[:-1] += x_CHW[1:]
        return iter([total.div_(sides[0])])

    @staticmethod
    def spread(averages_CHW: Tensor, side: int) -> Tensor:
        """The transpose of an average, which is one too."""
        return next(_OverChannels.averages(averages_CHW, (side,)))


def _difference(old_CHW: Tensor, new_CHW: Tensor) -> Tensor:
    """old ** 2 - new ** 2, exactly 0 where they are equal."""
    return (old_CHW - new_CHW).mul_(old_CHW + new_CHW)

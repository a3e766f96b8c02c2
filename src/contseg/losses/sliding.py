"""Distances of two squared maps by averages over windows and over channels, in parts that a processor cache holds.

With D = old^2 - new^2 and averages P D, the distance is the norm of P D per image, and its gradient by D is P' P D over the
norm. Both passes work on parts of D, so neither D nor an average of it is in memory as a whole.
"""

import math
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


def box_sums(x: Tensor, count: int, dim: int, apart: int = 1, known: dict[int, Tensor] | None = None) -> Tensor:
    """Sums of `count` entries along a dimension, which becomes shorter by (`count` - 1) * `apart`.

    A sum of many is one of two shorter sums, so that 24 neighbours are five additions.

    Args:
        apart: places from one entry to the next.
        known: sums of the same x by count, shared between calls.

    Example:
        >>> box_sums(torch.tensor([1.0, 2.0, 3.0, 4.0]), 3, dim=0)
        tensor([6., 9.])
        >>> box_sums(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2, dim=0, apart=2)
        tensor([4., 6.])
    """
    known = {} if known is None else known
    if count == 1:
        return x
    if count not in known:
        first = 1 << ((count - 1).bit_length() - 1)  # the largest power of two below
        length = x.shape[dim] - (count - 1) * apart
        left, right = box_sums(x, first, dim, apart, known), box_sums(x, count - first, dim, apart, known)
        known[count] = left.narrow(dim, 0, length) + right.narrow(dim, first * apart, length)
    return known[count]


class _Distances(torch.autograd.Function):
    """Norms per image of several averages of a difference; a subclass defines sums and what they are divided by."""

    parts: ClassVar[Any]
    sums: ClassVar[Any]
    spread: ClassVar[Any]
    divisor: ClassVar[Any]

    @classmethod
    def forward(cls, ctx: Any, old: Tensor, new: Tensor, sides: tuple[int, ...]) -> Tensor:
        squares = new.new_zeros((len(sides), len(new)))
        for image, part in cls.parts(new):
            for number, sums in enumerate(cls.sums(_difference(old[image][part], new[image][part]), sides)):
                squares[number, image] += sums.flatten().dot(sums.flatten()) / cls.divisor(sides[number]) ** 2
        distance = squares.sqrt()
        ctx.save_for_backward(old, new, distance)
        ctx.sides, ctx.kind = sides, cls
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (old, new, distance), kind, sides = ctx.saved_tensors, ctx.kind, ctx.sides
        factors = (-2 * gradient / distance).where(distance != 0, 0.0)  # as the gradient of a norm of 0
        factors = torch.stack([factor / kind.divisor(side) ** 2 for factor, side in zip(factors, sides, strict=True)])
        result = torch.empty_like(new)
        for image, part in kind.parts(new):
            all_sums = kind.sums(_difference(old[image][part], new[image][part]), sides)
            weighted = [sums * factor for factor, sums in zip(factors[:, image], all_sums, strict=True)]
            torch.mul(kind.spread(weighted, sides), new[image][part], out=result[image][part])
        return None, result, None


class _OverWindows(_Distances):
    """Windows are sums of squares whose side divides those of all windows: each of these is added up once for all."""

    @staticmethod
    def parts(map_BCHW: Tensor) -> Iterator[tuple[int, Any]]:
        """Images, and some of their channels at a time."""
        return channel_parts(map_BCHW, CHUNK)

    @staticmethod
    def divisor(side: int) -> int:
        """The numbers in a window."""
        return side**2

    @staticmethod
    def sums(x_CHW: Tensor, sides: tuple[int, ...]) -> Iterator[Tensor]:
        """The sums of a part over windows of each side."""
        unit, widest = math.gcd(*sides), max(sides) // 2
        padded = functional.pad(x_CHW, (widest, widest, widest, widest))
        squares = box_sums(box_sums(padded, unit, -1), unit, -2)
        in_rows: dict[int, Tensor] = {}
        for side in sides:
            start, shrink = widest - side // 2, side // 2 * 2 - side + 1
            height, width = x_CHW.shape[-2] + shrink, x_CHW.shape[-1] + shrink
            rows = box_sums(squares, side // unit, -1, unit, in_rows).narrow(-1, start, width)
            yield box_sums(rows.narrow(-2, start, height + side - unit), side // unit, -2, unit)

    @staticmethod
    def spread(sums_SCHW: list[Tensor], sides: tuple[int, ...]) -> Tensor:
        """The transpose of the sums: for each pixel, all windows that contain it."""
        unit = math.gcd(*sides)
        by_side = sorted(zip(sides, sums_SCHW, strict=True), key=lambda one: -one[0])
        smaller = [*(side for side, _ in by_side[1:]), 0]
        rows = total = None
        for (side, sums), next_side in zip(by_side, smaller, strict=True):
            rest = side - 1 - side // 2
            wide = box_sums(functional.pad(sums, (rest, rest, rest, rest)), side // unit, -2, unit)
            # What all windows at least as large as this one have in this place: shifted alike, it is added up once.
            rows = wide if rows is None else wide.add_(rows.narrow(-1, 0, wide.shape[-1]))
            for shift in range(next_side, side, unit):
                shifted = rows.narrow(-1, shift, wide.shape[-1] - side + unit)
                total = shifted.clone() if total is None else total.add_(shifted)
        assert total is not None
        return box_sums(box_sums(total, unit, -2), unit, -1)


class _OverChannels(_Distances):
    @staticmethod
    def parts(map_BCHW: Tensor) -> Iterator[tuple[int, Any]]:
        """Images, and some of their rows at a time."""
        return ((image, (slice(None), rows)) for image, rows in channel_parts(map_BCHW.transpose(1, 2), CHUNK))

    @staticmethod
    def divisor(side: int) -> int:
        """The channels of a sum."""
        return side

    @staticmethod
    def sums(x_CHW: Tensor, sides: tuple[int, ...]) -> Iterator[Tensor]:
        """The sums of a channel and its neighbours."""
        total = x_CHW.clone()
        total[1:] += x_CHW[:-1]
        total[:-1] += x_CHW[1:]
        return iter([total])

    @staticmethod
    def spread(sums_SCHW: list[Tensor], sides: tuple[int, ...]) -> Tensor:
        """The transpose of the sums, which is the same."""
        return next(_OverChannels.sums(sums_SCHW[0], sides))


def _difference(old_CHW: Tensor, new_CHW: Tensor) -> Tensor:
    """old ** 2 - new ** 2, exactly 0 where they are equal."""
    return (old_CHW - new_CHW).mul_(old_CHW + new_CHW)

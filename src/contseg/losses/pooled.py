"""Distance of strip averages of two maps at several scales, without the squared maps and without the embedding."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1 << 18
"""Numbers of a map that are squared at a time, as many as a processor cache can hold."""


class Strips(NamedTuple):
    """Averages over strips as products: map (H, W) @ columns, and rows @ map, are zero where a strip does not reach.

    Args:
        columns: (W, S), 1 / length in the columns of a strip.
        rows: (S, H).
        in_rows: (H, S), 1 in rows that the regions of the strip cover.
        in_columns: (S, W).
    """

    columns: Tensor
    rows: Tensor
    in_rows: Tensor
    in_columns: Tensor


@lru_cache(maxsize=32)
def strips(
    size: tuple[int, int], grids: tuple[tuple[int, int, int], ...], dtype: torch.dtype, device: torch.device
) -> Strips:
    """The strips of some grids.

    Args:
        grids: regions per side, and rows and columns of a region.
    """
    height, width = size
    columns, rows, in_rows, in_columns = [], [], [], []
    for scale, high, wide in grids:
        for place in range(scale):
            columns.append([(place * wide <= one < (place + 1) * wide) / wide for one in range(width)])
            rows.append([(place * high <= one < (place + 1) * high) / high for one in range(height)])
            in_rows.append([float(one < scale * high) for one in range(height)])
            in_columns.append([float(one < scale * wide) for one in range(width)])
    made = (torch.tensor(one, dtype=torch.float64).to(device, dtype) for one in (columns, rows, in_rows, in_columns))
    first, second, third, fourth = made
    return Strips(first.T.contiguous(), second, third.T.contiguous(), fourth)


def pooled_distance(old_BCHW: Tensor, new_BCHW: Tensor, grids: tuple[tuple[int, int, int], ...]) -> Tensor:
    """|| Psi(old ** 2) - Psi(new ** 2) ||_2 per image, (B,), with the strip averages Psi of `local_pod_embedding`.

    The square of the distance is a sum over strips, which need not be put in order. With D = old^2 - new^2 they are D @ c
    and r @ D for fixed matrices, and so is the gradient. Gradients reach `new`, once; none reach `old`.

    Args:
        old_BCHW, new_BCHW: maps in float32 or better.
        grids: see `strips`; all regions lie within the map.

    Example:
        >>> pooled_distance(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), ((1, 2, 2),))
        tensor([2.])
    """
    return _Distance.apply(old_BCHW, new_BCHW, grids)


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, old: Tensor, new: Tensor, grids: tuple[tuple[int, int, int], ...]) -> Tensor:
        found = strips((new.shape[2], new.shape[3]), grids, new.dtype, new.device)
        along = new.new_empty((*new.shape[:3], found.columns.shape[1]))
        down = new.new_empty((*new.shape[:2], len(found.rows), new.shape[3]))
        for image, part in channel_parts(new, CHUNK):
            before, now = old[image, part], new[image, part]
            difference = (before - now).mul_(before + now)  # exactly 0 where they are equal
            torch.matmul(difference, found.columns, out=along[image, part])
            torch.matmul(found.rows, difference, out=down[image, part])
        along *= found.in_rows
        down *= found.in_columns
        distance = (along.square().sum(dim=(1, 2, 3)) + down.square().sum(dim=(1, 2, 3))).sqrt()
        ctx.save_for_backward(new, along, down, distance, *found)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        new, along, down, distance, *matrices = ctx.saved_tensors
        found = Strips(*matrices)
        factors = (-2 * gradient / distance).where(distance != 0, 0.0)  # as the gradient of a norm of 0
        result = torch.empty_like(new)
        for image, part in channel_parts(new, CHUNK):
            rows = found.rows.T.expand(len(along[image, part]), -1, -1)
            spread = torch.matmul(along[image, part], found.columns.T).baddbmm_(rows, down[image, part])
            torch.mul(spread.mul_(factors[image]), new[image, part], out=result[image, part])
        return None, result, None


def channel_parts(map_BCHW: Tensor, most: int) -> Iterator[tuple[int, slice]]:
    """Images, and some of their channels at a time; all at once on a GPU.

    Args:
        most: numbers of a part, which has at least one channel.
    """
    channels = map_BCHW.shape[1]
    step = max(1, most // (map_BCHW.shape[2] * map_BCHW.shape[3])) if map_BCHW.device.type == "cpu" else channels
    return ((image, slice(first, first + step)) for image in range(len(map_BCHW)) for first in range(0, channels, step))

"""Averages over parts of a map as matrix products, for export: ONNX has no pooling whose kernel depends on the size."""

import torch
from torch import Tensor


def cell_means(x_BCHW: Tensor, cells: tuple[int, int]) -> Tensor:
    """`adaptive_avg_pool2d`: means over a grid of (rows, columns) cells, which overlap where they do not fit.

    Example:
        >>> x = torch.rand(1, 2, 7, 11)
        >>> torch.allclose(cell_means(x, (3, 6)), torch.nn.functional.adaptive_avg_pool2d(x, (3, 6)))
        True
    """
    rows, columns = (
        _means(*_cells(length, count, x_BCHW), x_BCHW)
        for length, count in zip((x_BCHW.shape[2], x_BCHW.shape[3]), cells, strict=True)
    )
    return rows @ x_BCHW @ columns.T


def _cells(length: int, count: int, like: Tensor) -> tuple[Tensor, Tensor, int]:
    cell = torch.arange(count, device=like.device)
    return cell * length // count, ((cell + 1) * length + count - 1) // count, length


def window_means(x_BCHW: Tensor, side: int) -> Tensor:
    """Means over a sliding window of `side` pixels, moved back inside at the border; of the whole axis where it is shorter.

    Example:
        >>> window_means(torch.tensor([[[[0.0, 3.0, 6.0, 9.0]]]]), 3)
        tensor([[[[3., 3., 6., 6.]]]])
    """
    rows, columns = (_means(*_windows(length, side, x_BCHW), x_BCHW) for length in (x_BCHW.shape[2], x_BCHW.shape[3]))
    return rows @ x_BCHW @ columns.T


def _windows(length: int, side: int, like: Tensor) -> tuple[Tensor, Tensor, int]:
    width = torch.sym_min(length, side)
    start = (torch.arange(length, device=like.device) - (width - 1) // 2).clamp(min=0, max=length - width)
    return start, start + width, length


def _means(start: Tensor, stop: Tensor, length: int, like: Tensor) -> Tensor:
    """Rows whose product with an axis are the means from `start` to `stop`: (results, length)."""
    place = torch.arange(length, device=like.device)
    inside = (place >= start[:, None]) & (place < stop[:, None])
    return inside.to(like.dtype) / (stop - start)[:, None].to(like.dtype)

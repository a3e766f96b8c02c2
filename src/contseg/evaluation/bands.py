"""Bilinear resizing in bands of rows, bit-equal to PyTorch's result for the whole map.

A map of K classes at the size of a large photo takes gigabytes, and is only needed for the arg max of each pixel. PyTorch
cannot resize a part of a map, and resizing only the input rows of a band rounds coordinates differently, so that a few
pixels change their class. Each output row is therefore resized from the two input rows around it, with a factor that
reproduces its exact coordinate in the whole map.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from contseg.models.layers import precise

BAND = 128
"""Maximum number of rows of a band."""
BAND_ELEMENTS = 2**25
"""Maximum number of values of a band (at least one row): 128 MiB."""
WHOLE_ELEMENTS = 2**26
"""Maximum number of values of a result that is kept whole: 256 MiB."""
_SHORTEST = 128
"""PyTorch sums smaller maps in another order, so narrower ones are not divided into bands."""


def rows_of_band(batch: int, channels: int, width: int) -> int:
    """Rows per band of a (batch, channels, H, width) result.

    Example:
        >>> rows_of_band(1, 21, 1000), rows_of_band(1, 151, 3000)
        (128, 74)
    """
    return max(1, min(BAND, BAND_ELEMENTS // (batch * channels * width)))


def can_band(size: tuple[int, int]) -> bool:
    """Whether rows of a result of this size are computed as those of the whole result."""
    return size[1] >= _SHORTEST


def is_large(batch: int, channels: int, size: tuple[int, int]) -> bool:
    """Whether a result of this size should, and can, be computed in bands."""
    return batch * channels * size[0] * size[1] > WHOLE_ELEMENTS and can_band(size)


class RowResizer:
    """`resize` of a map (B, K, h, w) to (H, W), for any range of rows.

    Example:
        >>> from contseg.models.layers import resize
        >>> map = torch.randn(1, 3, 20, 40)
        >>> resizer = RowResizer(map, (150, 300))
        >>> torch.equal(resizer.rows(30, 60), resize(map, (150, 300))[:, :, 30:60])
        True
    """

    def __init__(self, map_BCHW: Tensor, size: tuple[int, int]):
        self._map, self._size = precise(map_BCHW), size
        self._same = tuple(map_BCHW.shape[2:]) == tuple(size)
        self._format = torch.channels_last if _has_channels_last(self._map) else torch.contiguous_format
        if not self._same:
            self._above, self._below, self._factor = _places(map_BCHW.shape[2], size[0], self._map.dtype, self._map.device)
            self._first = int((self._above == 0).sum())  # output rows before the second row of the map

    def sources(self, top: int, bottom: int) -> slice:
        """Rows of the map just above the output rows `top` to `bottom` (not included), which also use the row after each.

        Without resizing these are the rows themselves.
        """
        return slice(top, bottom) if self._same else slice(int(self._above[top]), int(self._above[bottom - 1]) + 1)

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom` (not included), (B, K, bottom - top, W)."""
        if self._same:
            return self._map[:, :, top:bottom]
        band = empty_rows(self._map, bottom - top, self._size[1])
        if top < self._first:  # these coordinates are finer than a factor can express, but need no shift
            end = min(bottom, self._first)  # one row more: CUDA copies a map that keeps its size
            band[:, :, : end - top] = self._native(self._map[:, :, :2], max(end, 3), self._factor)[:, :, top:end]
        for row in range(max(top, self._first), bottom):
            above = int(self._above[row])
            pair = self._map[:, :, above : above + 2]
            if pair.shape[2] == 1:  # the last row of the map is both above and below
                pair = pair.expand(-1, -1, 2, -1)
            # PyTorch's coordinate of row 0 of the pair: (2 * below + 1) / 2 - 1 / 2 = below
            self._native(pair, 1, 1 / (2 * float(self._below[row]) + 1), out=band[:, :, row - top : row - top + 1])
        return band

    def _native(self, rows: Tensor, height: int, factor: float, out: Tensor | None = None) -> Tensor:
        rows, size = rows.contiguous(memory_format=self._format), [height, self._size[1]]
        if out is None:
            return torch.ops.aten.upsample_bilinear2d(rows, size, False, factor, None)
        return torch.ops.aten.upsample_bilinear2d.out(rows, size, False, factor, None, out=out)


def empty_rows(map_BCHW: Tensor, rows: int, width: int) -> Tensor:
    """Memory for a result (B, K, rows, width), row by row, into which PyTorch resizes a map without copies.

    Operations with a band of a `RowResizer` are fast if all have this layout.
    """
    batch, channels = map_BCHW.shape[:2]
    if _has_channels_last(map_BCHW):
        return map_BCHW.new_empty((rows, batch, width, channels)).permute(1, 3, 0, 2)
    return map_BCHW.new_empty((rows, batch, channels, width)).permute(1, 2, 0, 3)


def _has_channels_last(map_BCHW: Tensor) -> bool:
    return map_BCHW.is_contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=4096)
def _places(there: int, height: int, dtype: torch.dtype, device: torch.device) -> tuple[np.ndarray, np.ndarray, float]:
    """For each of `height` rows: the row of the map above it, its distance below that row, and the factor for PyTorch.

    The values are measured by resizing marks with PyTorch, as its rounding depends on the machine it was compiled for.

    Args:
        there: rows of the map.
    """
    scale = np.float32(there) / np.float32(height)
    factor = 1 / float(scale)
    rows = there + 1 + (height == there + 1)  # not as many as before: CUDA copies a map that keeps its size
    marks = torch.eye(3, dtype=dtype)[torch.arange(rows) % 3].T.reshape(1, 3, -1, 1).to(device)
    weights = (
        torch.ops.aten.upsample_bilinear2d(marks.contiguous(), [height, 1], False, factor, None)[0, :, :, 0].cpu().numpy()
    )
    about = np.floor(np.maximum((np.arange(height) + 0.5) * float(scale) - 0.5, 0)).astype(np.int64)
    lines = np.arange(height)
    above = about.copy()
    for guess in (about - 1, about, about + 1):
        fits = (weights[guess % 3, lines] > 0) & (weights[(guess + 2) % 3, lines] == 0) & (guess >= 0)
        above[fits] = guess[fits]
    return above, weights[(above + 1) % 3, lines], factor


def bands_of(resizers: list[RowResizer], batch: int, channels: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """The mean of resized maps in bands, from top to bottom: (batch, channels, rows, W) each."""
    step = rows_of_band(batch, channels, size[1])
    for top in range(0, size[0], step):
        bottom = min(top + step, size[0])
        total = resizers[0].rows(top, bottom)
        for resizer in resizers[1:]:
            total = total + resizer.rows(top, bottom)
        yield total if len(resizers) == 1 else total.div_(len(resizers))

"""The weighted mean over windows from their logits at the resolution of the network; a whole window is never resized."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from contseg.evaluation.bands import RowResizer, empty_rows
from contseg.evaluation.inference import Window
from contseg.models.layers import resize

BAND_VALUES = 2**22
"""Values of a band (at least one row): 16 MiB."""
GPU_BAND_VALUES = 2**28
"""The same on a GPU, which has the memory and wants few and large operations."""
Rows = Callable[[int, int], Tensor]
"""Rows of resized logits, from the first to the last (not included)."""


def blend(parts: Iterable[tuple[list[Window], list[Tensor | None]]], width: int, weight: Tensor) -> Iterator[Tensor]:
    """`accumulate` of resized logits, bit-equal, in bands (1, K, rows, W) from top to bottom.

    Logits are kept until no later window covers their rows, and resized to the rows of a band.

    Args:
        parts: windows of one size that `can_band`, row by row, and the logits (1, K, h, w) of each at any resolution; None
            is a window whose logits are 0.
        width: width of the image.
        weight: of each pixel of a window (h, w), positive.

    Example:
        >>> import torch
        >>> windows = [(slice(0, 4), slice(0, 128)), (slice(0, 4), slice(100, 228))]
        >>> bands = blend([(windows, [torch.ones(1, 2, 2, 64), torch.ones(1, 2, 2, 64)])], 228, torch.rand(4, 128) + 1)
        >>> torch.cat(list(bands), dim=2).unique().tolist()
        [1.0]
    """
    kept: list[tuple[Window, Rows | None]] = []
    top, like = 0, weight.new_zeros(1, 1, *weight.shape)
    for windows, maps in parts:
        for window, map in zip(windows, maps, strict=True):
            if (first := window[0].start) > top:
                yield from _means(kept, top, first, like, width, weight)
                top, kept = first, [one for one in kept if one[0][0].stop > first]
            like = like if map is None else map
            kept.append((window, None if map is None else _rows_of(map, (weight.shape[0], weight.shape[1]))))
    yield from _means(kept, top, kept[-1][0][0].stop, like, width, weight)


def _rows_of(map: Tensor, size: tuple[int, int]) -> Rows:
    """Rows of resized logits. A GPU resizes the whole window for each of the few bands that it is in."""
    return (lambda top, bottom: resize(map, size)[:, :, top:bottom]) if map.is_cuda else RowResizer(map, size).rows


def _means(
    kept: list[tuple[Window, Rows | None]], top: int, bottom: int, like: Tensor, width: int, weight: Tensor
) -> Iterator[Tensor]:
    """Bands of rows `top` to `bottom` with the channels, type and layout of a map."""
    step = max(1, (GPU_BAND_VALUES if weight.is_cuda else BAND_VALUES) // (like.shape[1] * width))
    for start in range(top, bottom, step):
        end = min(start + step, bottom)
        sums, counts = empty_rows(like, end - start, width).zero_(), weight.new_zeros((1, 1, end - start, width))
        for (rows, columns), map in kept:
            first, last = max(rows.start, start), min(rows.stop, end)
            if first >= last:
                continue
            here, part = slice(first - start, last - start), weight[first - rows.start : last - rows.start]
            if map is not None:
                sums[:, :, here, columns] += map(first - rows.start, last - rows.start) * part
            counts[:, :, here, columns] += part
        yield sums.div_(counts)

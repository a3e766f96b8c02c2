"""Functions of up-sampled maps, evaluated in bands of rows: memory does not depend on the batch.

At full size the logits of 151 classes take 151 MiB per image of 512 x 512 pixels, and each operation of a loss another
such tensor. A loss per pixel needs a few rows at a time only: they are up-sampled, used, and computed again in backward,
unless the whole batch is small.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from contseg.models.output import SegmenterOutput
from contseg.precision import precise

SMALLEST = 1 << 22
"""Numbers in an up-sampled batch from which bands are used: smaller ones are fast anyway, and keep their rounding."""
BAND = {"cpu": 1 << 19, "cuda": 1 << 25}
"""Numbers in a band: on a CPU as many as its cache can hold, on a GPU enough to keep it busy."""
KEPT = 1 << 24
"""Numbers in an up-sampled batch up to which bands are kept for backward, not computed again: at most a few times 64 MiB."""


def per_pixel(
    function: Callable[..., Any],
    size: tuple[int, int],
    *values: Any,
    in_bands: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """`function(*values, **options)` with the logits of outputs at full size in place of the outputs, up to rounding.

    The function must treat every pixel by itself and return one map (B, H, W), or a tuple of them. Large maps are passed to
    it in bands: a single image and some of its rows. Values of the shape (B, H, W) are cut alike, and other tensors of B
    entries are passed with the entry of the image. Gradients reach the logits, once.

    Args:
        function: of the values and options.
        size: (H, W).
        values: `SegmenterOutput` (at least one), tensors of B entries, or anything else.
        in_bands: an equal function that is faster on bands.
        options: passed unchanged.

    Example:
        >>> output, labels = SegmenterOutput(torch.zeros(1, 2, 1, 1)), torch.zeros(1, 2, 2, dtype=torch.int64)
        >>> def loss(logits_BKHW, labels_BHW):
        ...     return functional.cross_entropy(logits_BKHW, labels_BHW, reduction="none")
        >>> per_pixel(loss, (2, 2), output, labels)
        tensor([[[0.6931, 0.6931],
                 [0.6931, 0.6931]]])
    """
    maps = [value.logits for value in values if isinstance(value, SegmenterOutput)]
    batch, channels = len(maps[0]), max(one.shape[1] for one in maps)
    whole = batch * channels * size[0] * size[1] < SMALLEST or all(tuple(one.shape[2:]) == tuple(size) for one in maps)
    if whole or torch.compiler.is_compiling():
        return function(*(one.logits_at(size) if isinstance(one, SegmenterOutput) else one for one in values), **options)
    banded = in_bands or function
    call = _Call(lambda *cut: banded(*cut, **options), (size[0], size[1]), values, channels)
    kind = maps[0].device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        found = _InBands.apply(call, *map(precise, maps))
    return found if call.several else found[0]


class _Call:
    """A call of `per_pixel`: cuts its values into bands.

    Attributes:
        several: whether the function returns a tuple.
    """

    def __init__(self, function: Callable[..., Any], size: tuple[int, int], values: Sequence[Any], channels: int):
        self.function, self.size = function, size
        self.values = [None if isinstance(one, SegmenterOutput) else one for one in values]
        self.places = [place for place, one in enumerate(values) if isinstance(one, SegmenterOutput)]
        self.channels, self.several = channels, False

    def evaluate(self, image: int, rows: slice, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps of a band.

        Args:
            maps: (K, R, W), resized.
        """
        values = [self._cut(one, image, rows) for one in self.values]
        for place, one in zip(self.places, maps, strict=True):
            values[place] = one[None]
        result = self.function(*values)
        self.several = isinstance(result, tuple)
        return result if isinstance(result, tuple) else (result,)

    def _cut(self, value: Any, image: int, rows: slice) -> Any:
        if not isinstance(value, Tensor) or value.dim() == 0:
            return value
        one = value[image : image + 1]
        return one[:, rows] if tuple(value.shape[1:]) == self.size else one

    def bands(self, device: torch.device) -> Iterator[slice]:
        """The rows of each band."""
        height, width = self.size
        rows = max(1, BAND.get(device.type, BAND["cuda"]) // (self.channels * width))
        return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


class _InBands(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *maps: Tensor) -> tuple[Tensor, ...]:
        needed = ctx.needs_input_grad[1:]
        small = len(maps[0]) * call.channels * call.size[0] * call.size[1] <= KEPT
        ctx.call, ctx.kept = call, [] if small and any(needed) else None
        ctx.save_for_backward(*maps)
        results: list[Tensor] = []
        for image in range(len(maps[0])):
            wide = [ResizedRows.of(one[image], call.size) for one in maps]
            for rows in call.bands(maps[0].device):
                if ctx.kept is None:
                    found = call.evaluate(image, rows, [one.cut(rows) for one in wide])
                else:
                    ctx.kept.append(band := _Band.of(call, image, rows, wide, needed))
                    found = tuple(one.detach() for one in band.results)
                if not results:
                    results = [one.new_empty((len(maps[0]), *call.size)) for one in found]
                for result, one in zip(results, found, strict=True):
                    result[image, rows] = one[0]
        ctx.mark_non_differentiable(*(one for one in results if not one.is_floating_point()))
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        call, maps, needed = ctx.call, ctx.saved_tensors, ctx.needs_input_grad[1:]
        found = [torch.empty_like(one) if need else None for one, need in zip(maps, needed, strict=True)]
        kept, ctx.kept = iter(ctx.kept or ()), None  # of a second backward pass nothing is kept
        for image in range(len(maps[0])):
            wide = [ResizedRows.of(one[image], call.size) for one in maps]
            sums = [one.zeros() if need else None for one, need in zip(wide, needed, strict=True)]
            for rows in call.bands(maps[0].device):
                band = next(kept, None) or _Band.of(call, image, rows, wide, needed)
                heads = [one[image : image + 1, rows] for one in gradients]
                for total, one in zip(sums, band.gradients(heads), strict=True):
                    if total is not None and one is not None:
                        total.add(rows, one)
            for result, total in zip(found, sums, strict=True):
                if result is not None and total is not None:
                    result[image] = total.narrow()
        return (None, *found)


@dataclass(frozen=True)
class _Band:
    """The resized maps of a band, and the results that depend on them."""

    maps: list[Tensor]
    results: tuple[Tensor, ...]

    @classmethod
    def of(cls, call: _Call, image: int, rows: slice, wide: Sequence["ResizedRows"], needed: Sequence[bool]) -> "_Band":
        with torch.enable_grad():
            maps = [one.cut(rows).requires_grad_(need) for one, need in zip(wide, needed, strict=True)]
            return cls(maps, call.evaluate(image, rows, maps))

    def gradients(self, gradients: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of the maps from those of the results; once."""
        pairs = [(one, gradient) for one, gradient in zip(self.results, gradients, strict=True) if one.requires_grad]
        wanted = [one for one in self.maps if one.requires_grad]
        if not pairs:
            return [None] * len(self.maps)
        outputs, heads = zip(*pairs, strict=True)
        got = iter(torch.autograd.grad(outputs, wanted, heads, allow_unused=True))
        return [next(got) if one.requires_grad else None for one in self.maps]


@dataclass(frozen=True)
class ResizedRows:
    """A map with resized columns, whose rows are resized as needed.

    Args:
        wide: (K, h, W).
        weights: of source rows in each row, (H, h), and first and last source row of each row.
        columns: (w, W).

    Example:
        >>> ResizedRows.of(torch.tensor([[[0.0], [4.0]]]), (4, 1)).cut(slice(1, 3))
        tensor([[[1.],
                 [3.]]])
    """

    wide: Tensor
    weights: Tensor
    spans: list[tuple[int, int]]
    columns: Tensor

    @classmethod
    def of(cls, map_KHW: Tensor, size: tuple[int, int]) -> "ResizedRows":
        """The rows of a map at full size (H, W)."""
        height, width = map_KHW.shape[1:]
        columns, _ = _weights(width, size[1], map_KHW.dtype, map_KHW.device)
        weights, spans = _weights(height, size[0], map_KHW.dtype, map_KHW.device)
        return cls(map_KHW @ columns, weights.T.contiguous(), spans, columns)

    def cut(self, rows: slice) -> Tensor:
        """Rows at full size, (K, R, W)."""
        first, last = self._sources(rows)
        return torch.matmul(self.weights[rows, first:last], self.wide[:, first:last])

    def zeros(self) -> "ResizedRows":
        """The same without content, to add to."""
        return ResizedRows(torch.zeros_like(self.wide), self.weights, self.spans, self.columns)

    def add(self, rows: slice, gradient_KRW: Tensor) -> None:
        """The reverse of `cut`: add the gradient of some rows."""
        first, last = self._sources(rows)
        self.wide[:, first:last] += torch.matmul(self.weights[rows, first:last].T, gradient_KRW)

    def narrow(self) -> Tensor:
        """The reverse of `of`: (K, h, w)."""
        return self.wide @ self.columns.T

    def _sources(self, rows: slice) -> tuple[int, int]:
        return self.spans[rows.start][0], self.spans[rows.stop - 1][1] + 1


@lru_cache(maxsize=32)
def _weights(length: int, to: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, list[tuple[int, int]]]:
    """Weights of linear resizing, (length, to), and the first and last source of each result."""
    with torch.no_grad():
        each = functional.interpolate(torch.eye(length, dtype=dtype)[None], to, mode="linear", align_corners=False)[0]
    rows, columns = each.T.nonzero(as_tuple=True)
    spans = [(int(found.min()), int(found.max())) for found in (columns[rows == one] for one in range(to))]
    return each.to(device), spans

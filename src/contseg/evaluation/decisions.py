"""The class of each pixel from logits, equal to the arg max of scores at full size, mostly without computing a score.

Scores grow with logits. Two shortcuts follow, each with a margin far above the rounding of its values:

* A resized logit lies between the four logits around it. A class that is below another one at all four, everywhere in a
  band of rows, is not resized.
* Where a single class is near the greatest logit, it has the greatest score. Scores are only computed for rows in which
  two classes are so close that rounding could make their scores equal: the prediction is the first of equal classes.

A GPU computes scores faster than it waits for the numbers of such rows, so it takes no shortcut.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from contseg.evaluation.bands import RowResizer, bands_of, can_band, is_large
from contseg.models.decision import lowest_tie
from contseg.models.layers import resize
from contseg.models.names import Decision
from contseg.models.segmenter import Segmenter

BAND_VALUES = 2**20
"""Values of a band (at least one row): 4 MiB, for the cache of a processor."""
ROUNDING = 2.0**-19
"""Share by which a resized logit may be off; PyTorch's is off by about 2**-22 in float32."""


def takes_shortcuts(segmenter: Segmenter) -> bool:
    """Whether logits decide: on a CPU, with one score per output, by a rule of this package."""
    ours = getattr(segmenter.scores, "__func__", None) is Segmenter.scores
    return ours and segmenter.mean.device.type == "cpu" and not segmenter.options.unknown


def best_classes(segmenter: Segmenter, logits_BKHW: Tensor) -> Tensor:
    """Class outputs (B, H, W) int64: `segmenter.scores(logits).argmax(dim=1)`."""
    if not takes_shortcuts(segmenter):
        return segmenter.scores(logits_BKHW).argmax(dim=1)
    decision, every = segmenter.options.decision, torch.arange(logits_BKHW.shape[1])
    batch, channels, height, width = logits_BKHW.shape
    result = torch.empty((batch, height, width), dtype=torch.int64)
    for image, classes in zip(logits_BKHW.split(1), result.split(1), strict=True):
        for rows in _bands(height, channels * width):
            band = image[:, :, rows]

            def scores(row: slice, band: Tensor = band) -> Tensor:
                return segmenter.scores(band[:, :, row])

            classes[:, rows] = _decided(band, every, decision, scores)
    return result


def best_classes_resized(segmenter: Segmenter, logits_BKhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Class outputs (B, H, W) int64: `segmenter.scores(resize(logits, size)).argmax(dim=1)`, in bands with shortcuts."""
    if not (takes_shortcuts(segmenter) and can_band(size) and logits_BKhw.dtype == torch.float32):
        return torch.cat([_plainly(segmenter, logits, size) for logits in logits_BKhw.split(1)])
    decision = segmenter.options.decision
    result = torch.empty((len(logits_BKhw), *size), dtype=torch.int64)
    for logits, classes in zip(logits_BKhw.split(1), result.split(1), strict=True):
        whole, possible = RowResizer(logits, size), _possible(logits, decision)
        for rows in _bands(size[0], logits.shape[1] * size[1]):
            kept = possible[:, whole.sources(rows.start, rows.stop)].any(dim=1).nonzero()[:, 0]
            band = RowResizer(logits[:, kept], size).rows(rows.start, rows.stop)

            def scores(row: slice, start: int = rows.start, whole: RowResizer = whole) -> Tensor:
                return segmenter.scores(whole.rows(start + row.start, start + row.stop))

            classes[:, rows] = _decided(band, kept, decision, scores)
    return result


def _plainly(segmenter: Segmenter, logits_1Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """The classes (1, H, W) of an image from all scores."""
    channels = logits_1Khw.shape[1]
    if not is_large(1, channels, size):
        return best_classes(segmenter, resize(logits_1Khw, size))
    bands = bands_of([RowResizer(logits_1Khw, size)], 1, channels, size)
    return torch.cat([best_classes(segmenter, band) for band in bands], dim=1)


def _bands(height: int, values: int) -> Iterator[slice]:
    """Bands of rows with so many values each."""
    step = max(1, BAND_VALUES // values)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _possible(logits_1Khw: Tensor, decision: Decision) -> Tensor:
    """Which classes (K, h) may have the best score in pixels between rows i and i + 1 of a map; NaN makes all possible."""
    around = functional.pad(logits_1Khw, (0, 1, 0, 1), mode="replicate")
    highest = functional.max_pool2d(around, 2, stride=1)
    lowest_of_best = -functional.max_pool2d(-around, 2, stride=1).amin(dim=1, keepdim=True)
    beaten = _raised(highest) < _lowest(lowest_of_best, decision)
    return ~beaten[0].all(dim=2)


def _raised(logits: Tensor) -> Tensor:
    return logits + ROUNDING * logits.abs()


def _lowest(greatest: Tensor, decision: Decision) -> Tensor:
    """The lowest logit that may have the score of the greatest one, after rounding of both."""
    return lowest_tie(greatest - ROUNDING * greatest.abs(), decision)


def _decided(band_1KHW: Tensor, classes: Tensor, decision: Decision, scores: Callable[[slice], Tensor]) -> Tensor:
    """Class outputs (1, H, W) of a band.

    Args:
        band_1KHW: logits of `classes`, in ascending order.
        scores: of a range of rows, for all classes; called for rows in which logits do not decide.
    """
    count = len(classes)
    near = band_1KHW >= _lowest(band_1KHW.amax(dim=1, keepdim=True), decision)
    kind = torch.uint8 if count < 255 else torch.int32  # also the largest sum of two ranks is found in it, modulo 256
    ranks = torch.arange(1, count + 1, dtype=kind).view(1, -1, 1, 1)
    marks = near.view(torch.uint8).to(kind)
    last, first = (marks * ranks).amax(dim=1), (marks * ranks.flip(1)).amax(dim=1)  # 0 if all are NaN
    result = classes[(count - first.long()).clamp_max(count - 1)]
    unsure = (first + last != count + 1).any(dim=2)[0]
    for row in unsure.nonzero()[:, 0].tolist():
        result[:, row] = scores(slice(row, row + 1)).argmax(dim=1)[:, 0]
    return result

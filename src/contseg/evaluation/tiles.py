"""Prediction of images of any size in overlapping windows that are blended, with bounded memory.

Windows are read, predicted and summed from top to bottom. Only a strip of about `STRIP_VALUES` logits is in memory, at the
resolution of the network where windows have a single view: a wider image is processed in panels of columns, and windows
across the border of two panels are predicted for both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from contseg.evaluation.bands import can_band
from contseg.evaluation.blending import blend
from contseg.evaluation.inference import Inference, Window, accumulate, infer, infer_map, windows_of
from contseg.evaluation.predict import output_type, require_large_enough
from contseg.evaluation.values import View
from contseg.models.segmenter import Segmenter

STRIP_VALUES = 2**26
"""Maximum number of logits or sums in a strip of windows (at least two windows wide): 256 MiB."""
LARGEST, SMALLEST = 1024, 64
"""Sides of the first and the last windows that are tried if memory is short."""
Part = tuple[Window, np.ndarray]


class Pixels(Protocol):
    """An image of any size, read in windows."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        ...

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The pixels of a window, (h, w, 3) uint8 RGB."""
        ...

    def valid(self, rows: slice, columns: slice) -> np.ndarray:
        """Which pixels of a window have data, (h, w) bool."""
        ...


@dataclass(frozen=True)
class Photo:
    """An image in memory.

    Args:
        image: (H, W, 3) uint8 RGB.

    Example:
        >>> photo = Photo(np.zeros((4, 6, 3), np.uint8))
        >>> photo.size, photo.read(slice(0, 2), slice(0, 3)).shape
        ((4, 6), (2, 3, 3))
    """

    image: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        return self.image[rows, columns]

    def valid(self, rows: slice, columns: slice) -> np.ndarray:
        return np.ones((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)


@torch.no_grad()
def predict_tiles(
    segmenter: Segmenter,
    image: Pixels,
    inference: Inference,
    on_windows: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Part]:
    """Class outputs of an image in parts that cover each pixel once: the place of a part, and its (h, w) outputs.

    The outputs have the type of those of `predict_image`.

    Logits (or scores, see `InferenceOptions.average`) are averaged over the scales and mirrored views of a window, and
    then over windows with a weight that falls towards the edges of a window. Windows without data are not predicted; the
    output of a pixel without data has no meaning. The segmenter should be in eval mode.

    Args:
        inference: `crop` and `stride` are the windows, whatever the mode; `resize` is applied to each window, `fit` is not
            applied. On a CPU, `windows` is 1.
        on_windows: called with the numbers of predicted and of all windows.

    Raises:
        ContsegError: the image is smaller than the output stride, or a view of a window has no pixels.
    """
    options = inference.options.model_copy(update={"mode": "slide", "fit": None, "windows": 1})
    height, width = image.size
    if options.resize is None:
        require_large_enough(segmenter, (height, width))
    view = View.of(segmenter, options)
    logits = view.logits
    unknown = int(segmenter.options.unknown)  # logits have an unknown output before the classes, scores do not
    channels = sum(segmenter.widths) - (0 if logits else unknown)
    mirror = [(one + unknown * logits, other + unknown * logits) for one, other in inference.mirror]
    device = segmenter.mean.device

    network = view.network
    single = options.model_copy(update={"mode": "whole"})
    together = 1 if device.type == "cpu" else inference.options.windows

    def forward(windows: Sequence[Window]) -> tuple[list[int], Tensor | None]:
        """The positions of the windows with data, and their images."""
        used = [place for place, window in enumerate(windows) if image.valid(*window).any()]
        if not used:
            return used, None
        crops = torch.from_numpy(np.stack([image.read(*windows[place]) for place in used])).to(device)
        return used, segmenter.normalise(crops.permute(0, 3, 1, 2))

    def values_of(windows: Sequence[Window]) -> Tensor:
        """Logits or scores, (windows, K, h, w); zeros in windows without data."""
        rows, columns = windows[0]
        values = torch.zeros((len(windows), channels, rows.stop - rows.start, columns.stop - columns.start), device=device)
        used, images = forward(windows)
        if images is not None:
            values[used] = infer(network, images, options, None, view.scores, mirror)
        return values

    early: dict[int, Tensor] = {}  # logits of the first window, from which the panels follow

    def maps_of(windows: Sequence[Window]) -> list[Tensor | None]:
        """Logits as the network returns them, (1, K, h, w) for each window; None in windows without data."""
        if windows[0] is every[0] and early:
            return [early.pop(0), *(maps_of(windows[1:]) if windows[1:] else [])]
        used, images = forward(windows)
        maps = iter(() if images is None else infer_map(network, images, single).split(1))
        return [next(maps) if place in used else None for place in range(len(windows))]

    def share() -> float:
        """Pixels of the network's logits per pixel of an image; 1 if the first window has no data."""
        (map,) = maps_of(every[:1])
        if map is None:
            return 1
        early[0] = map
        return map.shape[2] * map.shape[3] / (side[0] * side[1])

    every = windows_of(height, width, options)
    side = (every[0][0].stop, every[0][1].stop)
    small = logits and single.single_view and not single.resizes and can_band(side)
    panels = _panels(every, width, channels * share() if small else channels)
    total, done = sum(len(windows) for _, windows in panels), 0
    weight = _weight(every[0]).to(device)
    for own, windows in panels:
        first, last = windows[0][1].start, windows[-1][1].stop

        def groups(windows: list[Window] = windows, first: int = first) -> Iterator[tuple[list[Window], list[Window]]]:
            """Windows that are predicted together, and their places in the panel."""
            nonlocal done
            for start in range(0, len(windows), together):
                group = windows[start : start + together]
                yield group, [(rows, _moved(columns, -first)) for rows, columns in group]
                done += len(group)
                on_windows(done, total)

        if small:
            strips = blend(((moved, maps_of(group)) for group, moved in groups()), last - first, weight)
        else:
            strips = accumulate(((moved, values_of(group)) for group, moved in groups()), last - first, weight)
        top = 0
        for strip in strips:
            values = strip[..., _moved(own, -first)]
            outputs = view.decide(values)[0].to(output_type(segmenter)).cpu().numpy()
            yield (slice(top, top + len(outputs)), own), outputs
            top += len(outputs)


def _panels(windows: list[Window], width: int, channels: float) -> list[tuple[slice, list[Window]]]:
    """Panels of columns, and all windows that cover some of their pixels, row by row.

    Args:
        channels: values per pixel of a strip.
    """
    rows, columns = windows[0]
    window = columns.stop - columns.start
    side = max(2 * window, int(STRIP_VALUES / (channels * (rows.stop - rows.start))) - 2 * window)
    panels = [slice(left, min(left + side, width)) for left in range(0, width, side)]
    return [(own, [one for one in windows if one[1].start < own.stop and own.start < one[1].stop]) for own in panels]


def _moved(columns: slice, by: int) -> slice:
    return slice(columns.start + by, columns.stop + by)


def _weight(window: Window) -> Tensor:
    """The weight of the pixels of a window (h, w): a product of half sine waves, positive up to the edges."""
    down, across = ((torch.arange(side.stop - side.start) + 0.5) / (side.stop - side.start) for side in window)
    return torch.outer((down * torch.pi).sin(), (across * torch.pi).sin())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is not enough memory, on a GPU or on the host."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def smaller(inference: Inference, size: tuple[int, int]) -> Inference | None:
    """What to try if there was not enough memory for an image of a size (height, width), or None.

    First windows of at most `LARGEST` pixels one by one, then half of them, down to `SMALLEST`.

    Example:
        >>> from contseg.evaluation.inference import WHOLE
        >>> sides, tried = [], WHOLE
        >>> while tried := smaller(tried, (900, 3000)):
        ...     sides.append(tried.options.window[0])
        >>> sides
        [900, 450, 225, 112]
    """
    options = inference.options
    if options.mode == "whole":
        side = min(LARGEST, *size)
        return None if max(size) <= SMALLEST else _in_windows(inference, max(side, SMALLEST))
    side = min(*options.window, *size)
    if options.windows > 1:
        return _in_windows(inference, side)
    return _in_windows(inference, side // 2) if side // 2 >= SMALLEST else None


def _in_windows(inference: Inference, side: int) -> Inference:
    changes = {"mode": "slide", "crop": side, "stride": None, "windows": 1}
    return replace(inference, options=inference.options.model_copy(update=changes))

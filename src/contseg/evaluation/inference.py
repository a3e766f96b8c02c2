"""Inference on whole images or sliding windows, at several scales and mirrored.

The rules are those of SSSegmentation, the toolbox of IDRNet (SegmentationBLWX/sssegmentation). All functions accept any
network from normalised images to logits of any resolution.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.limits import max_pixels
from contseg.errors import ContsegError
from contseg.evaluation import along
from contseg.evaluation.bands import RowResizer, bands_of, is_large, rows_of_band
from contseg.evaluation.options import InferenceOptions
from contseg.models.layers import resize

Network = Callable[[Tensor], Tensor]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Inference:
    """Options of inference, and the classes that are exchanged in a mirrored image.

    Args:
        mirror: pairs of class positions.
    """

    options: InferenceOptions
    mirror: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, options: InferenceOptions, pairs: Sequence[tuple[int, int]], ids: Sequence[int]) -> "Inference":
        """Make it for a segmenter from the dataset ids of its classes.

        Args:
            pairs: pairs of dataset ids (`SegmentationDataset.mirror`); pairs with a class that is not learned yet are
                skipped.
            ids: dataset ids of the classes, in output order.

        Example:
            >>> Inference.of(InferenceOptions(), [(14, 15), (16, 17)], [0, 15, 3, 14, 16]).mirror
            ((3, 1),)
        """
        place = {number: position for position, number in enumerate(ids)}
        known = tuple((place[one], place[other]) for one, other in pairs if one in place and other in place)
        return cls(options, known)


WHOLE = Inference(InferenceOptions())
"""A single view of the whole image."""


def infer(
    network: Network,
    images_BCHW: Tensor,
    options: InferenceOptions,
    size: tuple[int, int] | None = None,
    scores: Network = lambda logits: logits,
    mirror: Sequence[tuple[int, int]] = (),
) -> Tensor:
    """Logits or scores of images, averaged over views: (B, K, H, W) in float32 or better.

    Memory is that of the result and of one forward pass (of `windows` windows in mode `slide`); views are added up, not
    kept. `infer_in_bands` gives the same without a large result in memory.

    Args:
        network: normalised images to logits (B, K, h, w) at any resolution.
        size: (H, W) of the result; default: size of the images.
        scores: logits to scores (B, K', h, w); only used with `average: scores`. A whole image is scored at the resolution
            of its logits, a window at its own size, as in the toolbox.
        mirror: pairs of channels of the result that are exchanged in a mirrored image.

    Raises:
        ContsegError: an image is smaller than one pixel after scaling, or a very elongated one has more than `max_pixels`.

    Example:
        >>> options = InferenceOptions(mode="slide", crop=4, stride=3, flip=True)
        >>> infer(lambda images: images[:, :2], torch.ones(1, 3, 6, 9), options).shape
        torch.Size([1, 2, 6, 9])
    """
    size = size or (images_BCHW.shape[2], images_BCHW.shape[3])
    total: Tensor | None = None
    images, variants = _started(images_BCHW, options), _variants(options)
    for variant in variants:
        result = resize(_view(network, images, options, scores, mirror, variant), size)
        total = result if total is None else total.add_(result)
    assert total is not None
    return total if len(variants) == 1 else total.div_(len(variants))


def infer_in_bands(
    network: Network,
    images_BCHW: Tensor,
    options: InferenceOptions,
    size: tuple[int, int] | None = None,
    scores: Network = lambda logits: logits,
    mirror: Sequence[tuple[int, int]] = (),
) -> Iterator[Tensor]:
    """The result of `infer`, bit-equal, in bands (B, K, rows, W) from top to bottom; a large result is never in memory.

    With a single view in windows, strips of rows are averaged; views of the whole image are kept at the resolution of the
    network and resized in bands. Only several views in windows are added up at full size.

    Args: as of `infer`.

    Raises:
        ContsegError: an image is smaller than one pixel after scaling, or a very elongated one has more than `max_pixels`.
    """
    size = size or (images_BCHW.shape[2], images_BCHW.shape[3])
    images, variants = _started(images_BCHW, options), _variants(options)
    if options.mode != "whole" and len(variants) == 1:
        if tuple(images.shape[2:]) == tuple(size):
            yield from _strips(network, images, options, scores)
            return
        maps = [_slide(network, images, options, scores)]
    elif options.mode != "whole":
        total = infer(network, images_BCHW, options, size, scores, mirror)
        yield from total.split(rows_of_band(len(total), total.shape[1], size[1]), dim=2)
        return
    else:
        maps = [_view(network, images, options, scores, mirror, variant) for variant in variants]
    count, channels = maps[0].shape[:2]
    if is_large(count, channels, size):
        yield from bands_of([RowResizer(map, size) for map in maps], count, channels, size)
        return
    total = resize(maps[0], size)
    for map in maps[1:]:
        total = total.add_(resize(map, size))
    yield total if len(maps) == 1 else total.div_(len(maps))


def infer_map(network: Network, images_BCHW: Tensor, options: InferenceOptions) -> Tensor:
    """Logits of a single view of the whole image, at the resolution of the network: (B, K, h, w), in float32 or better.

    Args:
        options: with `single_view`.
    """
    (variant,) = _variants(options)
    return _view(network, _started(images_BCHW, options), options, lambda logits: logits, (), variant)


def viewed(images_BCHW: Tensor, options: InferenceOptions) -> Tensor:
    """The images that the network gets in a single view of the whole image.

    Args:
        options: with `single_view`.
    """
    ((scale, _),) = _variants(options)
    images = _started(images_BCHW, options)
    return images if scale == 1 else _scaled(images, scale)


def _variants(options: InferenceOptions) -> list[tuple[float, bool]]:
    """Scale of each view, and whether it is mirrored."""
    return [(scale, flipped) for scale in options.scales for flipped in ((False, True) if options.flip else (False,))]


def _started(images_BCHW: Tensor, options: InferenceOptions) -> Tensor:
    """The images after `options.resize` or `options.fit`, and what mode `along` does then."""
    start = _start(options, images_BCHW.shape[2], images_BCHW.shape[3])
    images = images_BCHW if start is None else resize(images_BCHW, start, options.antialias)
    return along.resized(images, options.window[0]) if options.mode == "along" else images


def _view(
    network: Network,
    images_BCHW: Tensor,
    options: InferenceOptions,
    scores: Network,
    mirror: Sequence[tuple[int, int]],
    variant: tuple[float, bool],
) -> Tensor:
    """The result of one view of images from `_started`, mirrored back, at its own resolution."""
    score = scores if options.average == "scores" else lambda logits: logits
    scale, flipped = variant
    seen = images_BCHW if scale == 1 else _scaled(images_BCHW, scale)
    seen = seen.flip(3) if flipped else seen
    if options.mode != "whole":
        result = _slide(network, seen, options, scores)
    else:
        result = score(_run(network, seen, options))
    return result.flip(3)[:, _swapped(result.shape[1], mirror)] if flipped else result


def windows_of(height: int, width: int, options: InferenceOptions) -> list[Window]:
    """The windows over an image, row by row; all have the same size, and the last of a row or column is moved back inside.

    In mode `along` the image must have its size already, see `contseg.evaluation.along`.

    Example:
        >>> [columns for _, columns in windows_of(4, 9, InferenceOptions(crop=4, stride=3))]
        [slice(0, 4, None), slice(3, 7, None), slice(5, 9, None)]
    """
    if options.mode == "along":
        return along.windows(height, width)
    rows, columns = (
        [slice(start, start + min(side, length)) for start in _starts(length, side, stride)]
        for length, side, stride in zip((height, width), options.window, options.strides, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def _starts(length: int, side: int, stride: int) -> list[int]:
    count = max(length - side + stride - 1, 0) // stride + 1
    return [min(number * stride, max(length - side, 0)) for number in range(count)]


def _slide(network: Network, images_BCHW: Tensor, options: InferenceOptions, scores: Network) -> Tensor:
    """Mean over the windows at each pixel, for the whole image."""
    total: Tensor | None = None
    top = 0
    for strip in _strips(network, images_BCHW, options, scores):
        if total is None:
            total = strip.new_empty((*strip.shape[:2], *images_BCHW.shape[2:]))
        total[:, :, top : top + strip.shape[2]] = strip
        top += strip.shape[2]
    assert total is not None
    return total


def _strips(network: Network, images_BCHW: Tensor, options: InferenceOptions, scores: Network) -> Iterator[Tensor]:
    """`accumulate` over the windows of images in memory."""
    score = scores if options.average == "scores" else lambda logits: logits

    def parts() -> Iterator[tuple[list[Window], Tensor]]:
        for windows in views(images_BCHW.shape[2], images_BCHW.shape[3], options):
            crops = torch.cat([images_BCHW[:, :, rows, columns] for rows, columns in windows])
            yield windows, score(resize(_run(network, crops, options), (crops.shape[2], crops.shape[3])))

    return accumulate(parts(), images_BCHW.shape[3])


def views(height: int, width: int, options: InferenceOptions) -> Iterator[list[Window]]:
    """The windows over an image or raster, from top to bottom, in groups that pass through the network together.

    Example:
        >>> [len(group) for group in views(4, 9, InferenceOptions(crop=4, stride=3, windows=2))]
        [2, 1]
    """
    windows = windows_of(height, width, options)
    for start in range(0, len(windows), options.windows):
        yield windows[start : start + options.windows]


def accumulate(parts: Iterable[tuple[list[Window], Tensor]], width: int, weight: Tensor | float = 1.0) -> Iterator[Tensor]:
    """Mean over overlapping windows, (B, K, rows, W), from top to bottom; rows are yielded when no later window covers them.

    Only the rows of the current windows are in memory, so that a raster of any height can be streamed.

    Args:
        parts: each group of `views`, in order, and the logits or scores of its crops at their own size:
            (windows x B, K, h, w), window by window.
        width: width of the image.
        weight: of each pixel of a window (h, w), positive; by default all are equal.

    Example:
        >>> image, options = torch.rand(1, 3, 6, 9), InferenceOptions(mode="slide", crop=4, stride=3, windows=2)
        >>> groups = views(6, 9, options)
        >>> parts = ((group, torch.cat([image[:, :, rows, columns] for rows, columns in group])) for group in groups)
        >>> torch.allclose(torch.cat(list(accumulate(parts, width=9)), dim=2), image)
        True
    """
    top, sums, counts = 0, None, None  # sums and counts start at row `top`
    equal = isinstance(weight, float)
    for windows, values in parts:
        batch = len(values) // len(windows)
        first, bottom = windows[0][0].start, windows[-1][0].stop
        if sums is None or counts is None:
            sums, counts = (values.new_zeros((*shape, 0, width)) for shape in ((batch, values.shape[1]), (1, 1)))
        if first > top:
            yield from _means(sums[:, :, : first - top], counts[:, :, : first - top])
            sums, counts, top = sums[:, :, first - top :], counts[:, :, first - top :], first
        if (more := bottom - top - sums.shape[2]) > 0:
            sums, counts = (functional.pad(one, (0, 0, 0, more)) for one in (sums, counts))
        for (rows, columns), part in zip(windows, values.split(batch), strict=True):
            here = slice(rows.start - top, rows.stop - top)
            sums[:, :, here, columns] += part if equal else part * weight
            counts[:, :, here, columns] += weight
    assert sums is not None
    assert counts is not None
    yield from _means(sums, counts)


def _means(sums_BKHW: Tensor, counts: Tensor) -> Iterator[Tensor]:
    step = rows_of_band(len(sums_BKHW), sums_BKHW.shape[1], sums_BKHW.shape[3])
    for part, times in zip(sums_BKHW.split(step, dim=2), counts.split(step, dim=2), strict=True):
        yield part / times


def _run(network: Network, images_BCHW: Tensor, options: InferenceOptions) -> Tensor:
    """Logits in float32 or better."""
    if options.precision == "32":
        logits = network(images_BCHW)
    else:
        with torch.autocast(images_BCHW.device.type, torch.bfloat16):
            logits = network(images_BCHW)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _start(options: InferenceOptions, height: int, width: int) -> tuple[int, int] | None:
    """The size to which an image is resized first, or None."""
    if options.resize is not None:
        return options.resize[0], options.resize[1]
    if options.fit is None:
        return None
    scale = min(max(options.fit) / max(height, width), min(options.fit) / min(height, width))
    tall, wide = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    if tall * wide > (most := max_pixels()):
        raise ContsegError(
            f"evaluation.fit: {width}x{height} resized for {options.fit} is {wide}x{tall}, more than {most} pixels; leave"
            " this image out, or set a smaller longer side"
        )
    return tall, wide


def _scaled(images_BCHW: Tensor, scale: float) -> Tensor:
    """Resize by a factor. Coordinates follow the factor, not the ratio of the sizes, which are rounded down."""
    height, width = images_BCHW.shape[2:]
    if min(height, width) * scale < 1:
        raise ContsegError(f"evaluation.scales: {scale} leaves nothing of an image of {width}x{height} pixels")
    return functional.interpolate(images_BCHW, scale_factor=scale, mode="bilinear")


def _swapped(channels: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    order = list(range(channels))
    for one, other in pairs:
        order[one], order[other] = other, one
    return order

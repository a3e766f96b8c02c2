"""How an image is seen at evaluation: whole or through a sliding window, at several scales, mirrored too.

The rules are those of the toolbox that IDRNet was released in (SegmentationBLWX/sssegmentation). Everything here works on
any function from normalised images to logits, at whatever resolution it answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.evaluation.bands import RowResizer, bands_of, is_large, rows_of_band
from contseg.evaluation.options import InferenceOptions
from contseg.models.layers import resize

Network = Callable[[Tensor], Tensor]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Inference:
    """How a segmenter is asked: the options, and which of its classes change places in a mirrored image.

    Args:
        mirror: pairs of positions among the classes.
    """

    options: InferenceOptions
    mirror: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, options: InferenceOptions, pairs: Sequence[tuple[int, int]], ids: Sequence[int]) -> "Inference":
        """For a segmenter whose classes have these dataset ids, in output order.

        Args:
            pairs: of dataset ids (`SegmentationDataset.mirror`); a pair of which one is not learned yet is left out.

        Example:
            >>> Inference.of(InferenceOptions(), [(14, 15), (16, 17)], [0, 15, 3, 14, 16]).mirror
            ((3, 1),)
        """
        place = {number: position for position, number in enumerate(ids)}
        known = tuple((place[one], place[other]) for one, other in pairs if one in place and other in place)
        return cls(options, known)


WHOLE = Inference(InferenceOptions())
"""One look at the whole image."""


def ask(
    network: Network,
    images_BCHW: Tensor,
    options: InferenceOptions,
    size: tuple[int, int] | None = None,
    scores: Network = lambda logits: logits,
    mirror: Sequence[tuple[int, int]] = (),
) -> Tensor:
    """What a network says of images, averaged over looks: (B, K, H, W) in float32 or better.

    Memory is that of the answer and of one forward pass (`windows` windows where they slide); no look is kept.
    `ask_in_bands` gives the same without holding a large answer whole.

    Args:
        network: normalised images to logits (B, K, h, w) at any resolution.
        size: (H, W) of the answer; default: that of the images.
        scores: of logits, (B, K', h, w); only used where the options average scores. A whole image is scored at the
            resolution of its logits, a window at its own size, as the toolbox does.
        mirror: pairs of channels of the answer that change places in a mirrored image.

    Raises:
        ContsegError: a scale leaves nothing of an image.

    Example:
        >>> options = InferenceOptions(mode="slide", crop=4, stride=3, flip=True)
        >>> ask(lambda images: images[:, :2], torch.ones(1, 3, 6, 9), options).shape
        torch.Size([1, 2, 6, 9])
    """
    size = size or (images_BCHW.shape[2], images_BCHW.shape[3])
    total: Tensor | None = None
    images, looks = _started(images_BCHW, options), _looks(options)
    for look in looks:
        said = resize(_look(network, images, options, scores, mirror, look), size)
        total = said if total is None else total.add_(said)
    assert total is not None
    return total if len(looks) == 1 else total.div_(len(looks))


def ask_in_bands(
    network: Network,
    images_BCHW: Tensor,
    options: InferenceOptions,
    size: tuple[int, int] | None = None,
    scores: Network = lambda logits: logits,
    mirror: Sequence[tuple[int, int]] = (),
) -> Iterator[Tensor]:
    """What `ask` gives, bit for bit, as (B, K, rows, W) from top to bottom; where that is large, it is never held whole.

    Windows that slide over the image once are averaged strip by strip; looks at the whole image are kept at the resolution
    of the network and resized a band at a time. Only several looks through windows are added up at full size.

    Args: as of `ask`.

    Raises:
        ContsegError: a scale leaves nothing of an image.
    """
    size = size or (images_BCHW.shape[2], images_BCHW.shape[3])
    images, looks = _started(images_BCHW, options), _looks(options)
    if options.mode == "slide" and len(looks) == 1:
        if tuple(images.shape[2:]) == tuple(size):
            yield from _strips(network, images, options, scores)
            return
        maps = [_slide(network, images, options, scores)]
    elif options.mode == "slide":
        total = ask(network, images_BCHW, options, size, scores, mirror)
        yield from total.split(rows_of_band(len(total), total.shape[1], size[1]), dim=2)
        return
    else:
        maps = [_look(network, images, options, scores, mirror, look) for look in looks]
    count, channels = maps[0].shape[:2]
    if is_large(count, channels, size):
        yield from bands_of([RowResizer(map, size) for map in maps], count, channels, size)
        return
    total = resize(maps[0], size)
    for map in maps[1:]:
        total = total.add_(resize(map, size))
    yield total if len(maps) == 1 else total.div_(len(maps))


def _looks(options: InferenceOptions) -> list[tuple[float, bool]]:
    """Scale of each look, and whether it is mirrored."""
    return [(scale, flipped) for scale in options.scales for flipped in ((False, True) if options.flip else (False,))]


def _started(images_BCHW: Tensor, options: InferenceOptions) -> Tensor:
    """The images at the size that they are first resized to."""
    start = _start(options, images_BCHW.shape[2], images_BCHW.shape[3])
    return images_BCHW if start is None else resize(images_BCHW, start)


def _look(
    network: Network,
    images_BCHW: Tensor,
    options: InferenceOptions,
    scores: Network,
    mirror: Sequence[tuple[int, int]],
    look: tuple[float, bool],
) -> Tensor:
    """The answer of one look at images that `_started` gave, upright, at the resolution that it has."""
    score = scores if options.average == "scores" else lambda logits: logits
    scale, flipped = look
    seen = images_BCHW if scale == 1 else _scaled(images_BCHW, scale)
    seen = seen.flip(3) if flipped else seen
    if options.mode == "slide":
        said = _slide(network, seen, options, scores)
    else:
        said = score(_run(network, seen, options))
    return said.flip(3)[:, _swapped(said.shape[1], mirror)] if flipped else said


def windows_of(height: int, width: int, options: InferenceOptions) -> list[Window]:
    """The windows over an image, row by row; all have one size, and the last of a row or column is moved back inside.

    Example:
        >>> [columns for _, columns in windows_of(4, 9, InferenceOptions(crop=4, stride=3))]
        [slice(0, 4, None), slice(3, 7, None), slice(5, 9, None)]
    """
    rows, columns = (
        [slice(start, start + min(side, length)) for start in _starts(length, side, stride)]
        for length, side, stride in zip((height, width), options.window, options.strides, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def _starts(length: int, side: int, stride: int) -> list[int]:
    count = max(length - side + stride - 1, 0) // stride + 1
    return [min(number * stride, max(length - side, 0)) for number in range(count)]


def _slide(network: Network, images_BCHW: Tensor, options: InferenceOptions, scores: Network) -> Tensor:
    """Mean over the windows that see a pixel."""
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
    """Mean over the windows that see a pixel, from top to bottom, as soon as no later window sees a row."""
    score = scores if options.average == "scores" else lambda logits: logits
    count, _, height, width = images_BCHW.shape
    top, held, seen = 0, None, None  # the sums and counts of rows `top` and below
    for group in _groups(windows_of(height, width, options), options.windows):
        crops = torch.cat([images_BCHW[:, :, rows, columns] for rows, columns in group])
        said = score(resize(_run(network, crops, options), (crops.shape[2], crops.shape[3])))
        first, bottom = group[0][0].start, group[-1][0].stop
        if held is None or seen is None:
            held, seen = (said.new_zeros((*shape, 0, width)) for shape in ((count, said.shape[1]), (1, 1)))
        if first > top:
            yield from _means(held[:, :, : first - top], seen[:, :, : first - top])
            held, seen, top = held[:, :, first - top :], seen[:, :, first - top :], first
        if (more := bottom - top - held.shape[2]) > 0:
            held, seen = (torch.cat([one, one.new_zeros((*one.shape[:2], more, width))], dim=2) for one in (held, seen))
        for (rows, columns), part in zip(group, said.split(count), strict=True):
            here = slice(rows.start - top, rows.stop - top)
            held[:, :, here, columns] += part
            seen[:, :, here, columns] += 1
    assert held is not None
    assert seen is not None
    yield from _means(held, seen)


def _means(total_BKHW: Tensor, seen: Tensor) -> Iterator[Tensor]:
    step = rows_of_band(len(total_BKHW), total_BKHW.shape[1], total_BKHW.shape[3])
    for part, times in zip(total_BKHW.split(step, dim=2), seen.split(step, dim=2), strict=True):
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
    """The size that an image is first resized to, if it is."""
    if options.resize is not None:
        return options.resize[0], options.resize[1]
    if options.fit is None:
        return None
    scale = min(max(options.fit) / max(height, width), min(options.fit) / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def _scaled(images_BCHW: Tensor, scale: float) -> Tensor:
    """Coordinates follow the factor itself, not the ratio of the sizes, which are rounded down."""
    height, width = images_BCHW.shape[2:]
    if min(height, width) * scale < 1:
        raise ContsegError(f"evaluation.scales: {scale} leaves nothing of an image of {width}x{height} pixels")
    return functional.interpolate(images_BCHW, scale_factor=scale, mode="bilinear")


def _swapped(channels: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    order = list(range(channels))
    for one, other in pairs:
        order[one], order[other] = other, one
    return order


def _groups(windows: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]

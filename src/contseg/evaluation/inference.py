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
    height, width = images_BCHW.shape[2:]
    size = size or (height, width)
    images = images_BCHW if (start := _start(options, height, width)) is None else resize(images_BCHW, start)
    score = scores if options.average == "scores" else lambda logits: logits
    looks = [(scale, flipped) for scale in options.scales for flipped in ((False, True) if options.flip else (False,))]
    total: Tensor | None = None
    for scale, flipped in looks:
        seen = images if scale == 1 else _scaled(images, scale)
        seen = seen.flip(3) if flipped else seen
        said = _slide(network, seen, options, score) if options.mode == "slide" else score(_run(network, seen, options))
        if flipped:
            said = said.flip(3)[:, _swapped(said.shape[1], mirror)]
        said = resize(said, size)
        total = said if total is None else total.add_(said)
    assert total is not None
    return total if len(looks) == 1 else total.div_(len(looks))


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


def _slide(network: Network, images_BCHW: Tensor, options: InferenceOptions, score: Network) -> Tensor:
    """Mean over the windows that see a pixel."""
    count, _, height, width = images_BCHW.shape
    total: Tensor | None = None
    seen = images_BCHW.new_zeros((1, 1, height, width))
    for group in _groups(windows_of(height, width, options), options.windows):
        crops = torch.cat([images_BCHW[:, :, rows, columns] for rows, columns in group])
        said = score(resize(_run(network, crops, options), (crops.shape[2], crops.shape[3])))
        if total is None:
            total = said.new_zeros((count, said.shape[1], height, width))
        for (rows, columns), part in zip(group, said.split(count), strict=True):
            total[:, :, rows, columns] += part
            seen[:, :, rows, columns] += 1
    assert total is not None
    return total.div_(seen)


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
    return int(height * scale + 0.5), int(width * scale + 0.5)


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

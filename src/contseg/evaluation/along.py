"""Square windows along the longer side of an image, as EoMT predicts, by integers only, so that no column is left out."""

from fractions import Fraction

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from contseg.data.limits import max_pixels
from contseg.errors import ContsegError

Window = tuple[slice, slice]


def size_along(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side becomes `side`, keeping its aspect.

    Raises:
        ContsegError: it would have more than `max_pixels`.

    Example:
        >>> size_along(40, 61, 32), size_along(50, 21, 32)
        ((32, 49), (76, 32))
    """
    factor = Fraction(side, min(height, width))
    result = round(height * factor), round(width * factor)
    if result[0] * result[1] > (most := max_pixels()):
        raise ContsegError(
            f"evaluation.mode: {width}x{height} is {result[1]}x{result[0]} along windows of {side}, more than {most} pixels;"
            " leave this image out, or set evaluation.mode=slide"
        )
    return result


def size_inside(height: int, width: int, box: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image that is resized to fit inside a box, keeping its aspect.

    Example:
        >>> size_inside(40, 80, (32, 32)), size_inside(10, 5, (32, 64))
        ((16, 32), (32, 16))
    """
    factor = min(Fraction(box[0], height), Fraction(box[1], width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def windows(height: int, width: int) -> list[Window]:
    """The windows of an image of `size_along`: squares of its shorter side, from one end to the other.

    They overlap by what the last one would stand out, in equal shares.

    Example:
        >>> [columns.start for _, columns in windows(32, 130)]
        [0, 24, 49, 73, 98]
    """
    side, long = sorted((height, width))
    count = -(-long // side)
    beyond, gaps = count * side - long, max(1, count - 1)
    starts = [(number * (side * gaps - beyond)) // gaps for number in range(count)]
    parts = [slice(start, start + side) for start in starts]
    return [(slice(0, side), part) for part in parts] if width >= height else [(part, slice(0, side)) for part in parts]


def resized(images_BCHW: Tensor, side: int) -> Tensor:
    """Images at the size of `size_along`, bilinear and antialiased; uint8 ones by Pillow, whose rounding is the published.

    Example:
        >>> resized(torch.zeros(1, 3, 40, 61, dtype=torch.uint8), 32).shape
        torch.Size([1, 3, 32, 49])
    """
    return resized_to(images_BCHW, size_along(images_BCHW.shape[2], images_BCHW.shape[3], side))


def resized_to(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """As `resized`, at any size (H, W)."""
    height, width = size
    if size == tuple(images_BCHW.shape[2:]):
        return images_BCHW
    if images_BCHW.is_floating_point():
        return functional.interpolate(images_BCHW, size, mode="bilinear", antialias=True)
    pixels = images_BCHW.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    found = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR)) for one in pixels]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(images_BCHW.device)

"""What a pipeline is, and what all of them need: resizing of images and masks, and what a flip does to ids."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.recoding import look_up

Sample = tuple[Tensor, np.ndarray]
Pipeline = Callable[[np.ndarray, np.ndarray, np.random.Generator], Sample]
Size = int | tuple[int, int]
"""Of a crop: a side, or (height, width)."""


def sides(size: Size) -> tuple[int, int]:
    """(height, width) of a crop.

    Example:
        >>> sides(8), sides((4, 6))
        ((8, 8), (4, 6))
    """
    return (size, size) if isinstance(size, int) else size


def resize_image(image: np.ndarray, height: int, width: int, antialias: bool = True) -> Tensor:
    """Bilinear resize of (H, W, 3) uint8 to a (3, height, width) uint8 tensor, in memory still (H, W, 3).

    Args:
        antialias: average what is shrunk, as Pillow does; False takes four neighbours, as OpenCV does.
    """
    pixels = image if image.flags.writeable and image.flags.c_contiguous else image.copy()  # PyTorch wants writable memory
    tall, wide, depth = pixels.shape
    # the stride of the batch axis, which PyTorch would set to 3, makes it see the layout and leave it as it is
    planes = torch.from_numpy(pixels).as_strided((1, depth, tall, wide), (pixels.size, 1, wide * depth, depth))
    if (tall, wide) != (height, width):
        planes = functional.interpolate(planes, (height, width), mode="bilinear", antialias=antialias)
    return planes.squeeze(0)


def resize_mask(mask: np.ndarray, height: int, width: int, mirrored: bool = False, centre: float = 0.5) -> np.ndarray:
    """Nearest resize of ids (H, W) of any integer type, flipped left to right if asked for.

    Args:
        centre: where in a pixel to look: 0.5 is its centre; OpenCV looks at its corner, 0.

    Example:
        >>> resize_mask(np.array([[1, 2], [3, 4]]), 4, 2)[:, 0]
        array([1, 1, 3, 3])
    """
    if mask.shape == (height, width):
        return mask[:, ::-1] if mirrored else mask
    rows = ((np.arange(height) + centre) * mask.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + centre) * mask.shape[1] / width).astype(np.int64)
    return mask.take(columns[::-1] if mirrored else columns, axis=1).take(rows, axis=0)


def swap_ids(ids: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Ids (H, W) uint8 or uint16 with the two of each pair exchanged: what left and right are after a flip.

    Example:
        >>> swap_ids(np.array([[1, 2, 3]], dtype=np.uint8), [(2, 3)])
        array([[1, 3, 2]], dtype=uint8)
    """
    if not pairs:
        return ids
    table = np.arange(np.iinfo(ids.dtype).max + 1, dtype=ids.dtype)
    if ids.dtype == np.uint16:  # the highest bit marks what is salient
        pairs = [*pairs, *((left | 1 << 15, right | 1 << 15) for left, right in pairs)]
    left, right = zip(*pairs, strict=True)
    table[list(left + right)] = right + left
    return look_up(table, ids)

"""Types of samples and pipelines, and shared functions: resizing, flips and padding of images and label layers."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.classes import IGNORE
from contseg.data.recoding import look_up

Layers = dict[str, np.ndarray]
"""Labels of an image by name, (H, W) integers each: `mask` (dataset ids, required) and, for example, `saliency`.

Every pipeline cuts, resizes and flips all layers alike. Only `mask` contains class ids, some of which are
exchanged in a flip, and 255 for ignored pixels. Every other layer is padded with 0.
"""
Sample = tuple[Tensor, Layers]
"""Image (3, h, w) uint8 and its layers (h, w), cut by a pipeline."""
Pipeline = Callable[[np.ndarray, Layers, np.random.Generator], Sample]
"""From an image (H, W, 3) uint8 and its layers (H, W) to a sample; the generator is its only source of randomness."""
Size = int | tuple[int, int]
"""Size of a crop: a side, or (height, width)."""


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
        antialias: average over all pixels when shrinking, as Pillow does; False uses four neighbours, as OpenCV does.
    """
    # PyTorch requires writable memory
    pixels = image if image.flags.writeable and image.flags.c_contiguous else image.copy()
    tall, wide, depth = pixels.shape
    # with this stride of the batch axis, PyTorch recognises channels-last memory and keeps it
    planes = torch.from_numpy(pixels).as_strided((1, depth, tall, wide), (pixels.size, 1, wide * depth, depth))
    if (tall, wide) != (height, width):
        planes = functional.interpolate(planes, (height, width), mode="bilinear", antialias=antialias)
    return planes.squeeze(0)


def resize_mask(mask: np.ndarray, height: int, width: int, mirrored: bool = False, centre: float = 0.5) -> np.ndarray:
    """Nearest-neighbour resize of a label layer (H, W) of any integer type.

    Args:
        mirrored: flip the result horizontally.
        centre: the sampled point within a pixel: 0.5 is its centre; OpenCV uses its corner, 0.

    Example:
        >>> resize_mask(np.array([[1, 2], [3, 4]]), 4, 2)[:, 0]
        array([1, 1, 3, 3])
    """
    if mask.shape == (height, width):
        return mask[:, ::-1] if mirrored else mask
    rows = ((np.arange(height) + centre) * mask.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + centre) * mask.shape[1] / width).astype(np.int64)
    return mask[:, columns[::-1] if mirrored else columns].take(rows, axis=0)  # faster than `take` along columns


def resize_layers(layers: Layers, height: int, width: int, mirrored: bool = False, centre: float = 0.5) -> Layers:
    """`resize_mask` of every layer."""
    return {name: resize_mask(layer, height, width, mirrored, centre) for name, layer in layers.items()}


def cut_layers(layers: Layers, window: tuple[slice, slice]) -> Layers:
    """The same window of every layer, without copies."""
    return {name: layer[window] for name, layer in layers.items()}


def swap_sides(layers: Layers, pairs: Sequence[tuple[int, int]]) -> Layers:
    """Layers after a flip: the two ids of each pair (left arm, right arm) are exchanged in the mask."""
    return layers | {"mask": swap_ids(layers["mask"], pairs)} if pairs else layers


def swap_ids(ids: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Ids (H, W) uint8 or uint16 with the two of each pair exchanged.

    Example:
        >>> swap_ids(np.array([[1, 2, 3]], dtype=np.uint8), [(2, 3)])
        array([[1, 3, 2]], dtype=uint8)
    """
    table = np.arange(np.iinfo(ids.dtype).max + 1, dtype=ids.dtype)
    for left, right in pairs:
        table[[left, right]] = right, left
    return look_up(table, ids)


def ignored_value(name: str) -> int:
    """The value of a layer outside the image: 255 in the mask, 0 elsewhere."""
    return IGNORE if name == "mask" else 0

"""Pipelines `ssseg` and `ssseg-lip`: the augmentation of SSSegmentation, the code base of IDRNet."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.data.pipelines.photometric import distort
from contseg.data.pipelines.sample import (
    Layers,
    Sample,
    Size,
    cut_layers,
    ignored_value,
    resize_image,
    resize_layers,
    sides,
    swap_sides,
)
from contseg.data.recoding import count_ids

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean colour in whole grey levels: 0 after normalisation, which is what the published code pads with."""


@dataclass(frozen=True)
class KeepRatioCrop:
    """Pipeline `ssseg`: resize by a random factor, crop where no class dominates, flip, distort colours, pad.

    1. Resize to the largest size of the image's aspect that fits into `resize` times a factor from `scale` (bilinear without
       antialiasing, labels nearest, both at OpenCV's coordinates).
    2. Cut a window: of up to ten draws, the first with at least two classes and none on more than `most` of the valid
       pixels, otherwise the last. If the last has no valid pixel, the image stays uncut, and step 5 cuts its centre.
    3. Flip, exchanging the ids of `mirror`.
    4. `distort` the colours.
    5. Pad around the centre: `MEAN_COLOUR` in the image, 255 in the mask. If only one of image and crop is in portrait
       format, a rectangular crop is rotated.

    Jin et al., SSSegmentation: An Open Source Supervised Semantic Segmentation Toolbox Based on PyTorch, 2023.

    Args:
        size: of the crop in pixels: a side, or (height, width).
        flip: probability of a horizontal flip.
        scale: range of the factor.
        resize: (long, short) side of the box that images are fitted into.
        mirror: pairs of ids that are exchanged in a flip.
        void: ids other than 255 that are not valid in step 2.
        most: the largest fraction of a window's valid pixels that one class may have.
        turn: probability of a rotation by -30 to 29 whole degrees, after step 3, padded with black and 255.
    """

    size: Size
    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 2.0)
    resize: tuple[int, int] = (2048, 512)
    mirror: tuple[tuple[int, int], ...] = ()
    void: tuple[int, ...] = ()
    most: float = 0.75
    turn: float = 0.0
    keeps_ratio: ClassVar[bool] = True

    def __call__(self, image: np.ndarray, layers: Layers, rng: np.random.Generator) -> Sample:
        tall, wide = self._resized(image.shape[0], image.shape[1], rng.uniform(*self.scale))
        layers = resize_layers(layers, tall, wide, centre=0.0)
        window = self._window(layers["mask"], rng)
        pixels = resize_image(image, tall, wide, antialias=False)[:, window[0], window[1]]
        layers = cut_layers(layers, window)
        if rng.random() < self.flip:
            pixels, layers = pixels.flip(2), swap_sides(cut_layers(layers, np.s_[:, ::-1]), self.mirror)
        if self.turn and rng.random() < self.turn:
            pixels, layers = _rotate(pixels, layers, int(rng.integers(-30, 30)))
        return self._padded(distort(pixels, rng), layers)

    def _resized(self, height: int, width: int, factor: float) -> tuple[int, int]:
        long, short = (int(side * factor) for side in (max(self.resize), min(self.resize)))
        if not self.keeps_ratio:
            return (max(1, long), max(1, short)) if height > width else (max(1, short), max(1, long))
        scale = min(long / max(height, width), short / min(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def _window(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
        height, width = (min(side, there) for side, there in zip(sides(self.size), ids.shape, strict=True))
        for _ in range(10):
            top, left = int(rng.integers(ids.shape[0] - height + 1)), int(rng.integers(ids.shape[1] - width + 1))
            window = np.s_[top : top + height, left : left + width]
            counts = count_ids(ids[window])
            counts[[number for number in (IGNORE, *self.void) if number < len(counts)]] = 0
            if np.count_nonzero(counts) > 1 and counts.max() <= self.most * counts.sum():
                return window
        return window if counts.any() else np.s_[:, :]

    def _padded(self, pixels: Tensor, layers: Layers) -> Sample:
        height, width = sides(self.size)
        if (height > width) != (pixels.shape[1] > pixels.shape[2]):
            height, width = width, height
        rows, columns = _placed(pixels.shape[1], height), _placed(pixels.shape[2], width)
        framed = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
        framed[:, rows[1], columns[1]] = pixels[:, rows[0], columns[0]]
        padded = {}
        for name, layer in layers.items():
            padded[name] = np.full((height, width), ignored_value(name), dtype=layer.dtype)
            padded[name][rows[1], columns[1]] = layer[rows[0], columns[0]]
        return framed, padded


@dataclass(frozen=True)
class FreeResizeCrop(KeepRatioCrop):
    """Pipeline `ssseg-lip` (LIP, CIHP, ATR): like `ssseg`, but resized without keeping the aspect, and rotated."""

    scale: tuple[float, float] = (0.75, 1.25)
    resize: tuple[int, int] = (520, 520)
    turn: float = 0.6
    keeps_ratio: ClassVar[bool] = False


def _placed(length: int, side: int) -> tuple[slice, slice]:
    """The visible part of an axis and its place in a crop of `side` pixels, both centred."""
    start = (side - length) // 2
    shown = min(length, side)
    return np.s_[max(-start, 0) : max(-start, 0) + shown], np.s_[max(start, 0) : max(start, 0) + shown]


def _rotate(pixels: Tensor, layers: Layers, angle: int) -> Sample:
    """Image and layers rotated around their centre, counter-clockwise by `angle` degrees."""
    turned = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).rotate(
        angle, Image.Resampling.BICUBIC, fillcolor=(0, 0, 0)
    )
    labels = {}
    for name, layer in layers.items():
        numbers = Image.fromarray(layer.astype(np.int32))
        numbers = numbers.rotate(angle, Image.Resampling.NEAREST, fillcolor=ignored_value(name))
        labels[name] = np.asarray(numbers).astype(layer.dtype)
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1), labels

"""Pipelines `ssseg` and `ssseg-lip`: what SSSegmentation, the code base of IDRNet, does to training images."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.data.pipelines.photometric import distort
from contseg.data.pipelines.resize import Sample, Size, resize_image, resize_mask, sides, swap_ids
from contseg.data.recoding import count_ids

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean colour in whole grey levels: what a 0 after normalisation, as published, is before it."""


@dataclass(frozen=True)
class KeepRatioCrop:
    """Pipeline `ssseg`: resize with a random factor, crop where no class fills the window, flip, distort colours, pad.

    1. Resize to the largest size of the image's aspect that fits into `resize` times a factor from `scale` (bilinear without
       antialiasing, ids nearest, both where OpenCV looks).
    2. Cut a window; up to ten draws, of which the first counts that shows two classes and none on more than `most` of the
       valid pixels, else the last. If that one has no valid pixel, the image stays uncut, and step 5 cuts its centre.
    3. Flip, exchanging the ids of `mirror`.
    4. `distort` the colours.
    5. Pad around the centre: `MEAN_COLOUR` in the image, 255 in the mask. Where one of image and crop is upright and the
       other is not, a rectangular crop is turned.

    Jin et al., SSSegmentation: An Open Source Supervised Semantic Segmentation Toolbox Based on PyTorch, 2023.

    Args:
        size: of the crop in pixels: a side, or (height, width).
        flip: probability of a horizontal flip.
        scale: range of the factor.
        resize: (long, short) side of the box that an image is fitted into.
        mirror: pairs of ids that change places in a flip.
        void: ids besides 255 that are not valid in step 2.
        most: the largest part of a window's valid pixels that one class may have.
        turn: probability of a rotation by -30 to 29 whole degrees, after step 3, in black and 255.
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

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
        tall, wide = self._resized(mask.shape[0], mask.shape[1], rng.uniform(*self.scale))
        ids = resize_mask(mask, tall, wide, centre=0.0)
        window = self._window(ids, rng)
        pixels, ids = resize_image(image, tall, wide, antialias=False)[:, window[0], window[1]], ids[window]
        if rng.random() < self.flip:
            pixels, ids = pixels.flip(2), swap_ids(ids[:, ::-1], self.mirror)
        if self.turn and rng.random() < self.turn:
            pixels, ids = _rotate(pixels, ids, int(rng.integers(-30, 30)))
        return self._padded(distort(pixels, rng), ids)

    def _resized(self, height: int, width: int, factor: float) -> tuple[int, int]:
        long, short = (int(side * factor) for side in (max(self.resize), min(self.resize)))
        if not self.keeps_ratio:
            return (max(1, long), max(1, short)) if height > width else (max(1, short), max(1, long))
        scale = min(long / max(height, width), short / min(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def _window(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
        height, width = (min(side, there) for side, there in zip(sides(self.size), ids.shape, strict=True))
        named = ids & 0x7FFF if ids.dtype == np.uint16 else ids  # without the bit that marks what is salient
        for _ in range(10):
            top, left = int(rng.integers(ids.shape[0] - height + 1)), int(rng.integers(ids.shape[1] - width + 1))
            window = np.s_[top : top + height, left : left + width]
            counts = count_ids(named[window])
            counts[[number for number in (IGNORE, *self.void) if number < len(counts)]] = 0
            if np.count_nonzero(counts) > 1 and counts.max() <= self.most * counts.sum():
                return window
        return window if counts.any() else np.s_[:, :]

    def _padded(self, pixels: Tensor, ids: np.ndarray) -> Sample:
        height, width = sides(self.size)
        if (height > width) != (ids.shape[0] > ids.shape[1]):
            height, width = width, height
        rows, columns = _placed(ids.shape[0], height), _placed(ids.shape[1], width)
        framed = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
        framed[:, rows[1], columns[1]] = pixels[:, rows[0], columns[0]]
        labels = np.full((height, width), IGNORE, dtype=ids.dtype)
        labels[rows[1], columns[1]] = ids[rows[0], columns[0]]
        return framed, labels


@dataclass(frozen=True)
class FreeResizeCrop(KeepRatioCrop):
    """Pipeline `ssseg-lip` (LIP, CIHP, ATR): as `ssseg`, but resized to `resize` whatever the aspect, and rotated."""

    scale: tuple[float, float] = (0.75, 1.25)
    resize: tuple[int, int] = (520, 520)
    turn: float = 0.6
    keeps_ratio: ClassVar[bool] = False


def _placed(length: int, side: int) -> tuple[slice, slice]:
    """Which part of an axis is shown, and where, if its middle is to lie in the middle of a crop."""
    start = (side - length) // 2
    shown = min(length, side)
    return np.s_[max(-start, 0) : max(-start, 0) + shown], np.s_[max(start, 0) : max(start, 0) + shown]


def _rotate(pixels: Tensor, ids: np.ndarray, angle: int) -> Sample:
    """Image and mask of one size turned around their centre, counter-clockwise by so many degrees."""
    turned = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).rotate(
        angle, Image.Resampling.BICUBIC, fillcolor=(0, 0, 0)
    )
    numbers = Image.fromarray(ids.astype(np.int32)).rotate(angle, Image.Resampling.NEAREST, fillcolor=IGNORE)
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1), np.asarray(numbers).astype(ids.dtype)

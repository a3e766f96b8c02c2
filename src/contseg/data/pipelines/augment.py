"""Augmentation on uint8, crop first: named pipelines, each exactly one code base's.

A pipeline turns (image (H, W, 3) uint8, mask (H, W) ids) into (image (3, h, w) uint8 tensor, mask (h, w) ids), drawing
from the generator it is given and from nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from contseg.data.files import max_pixels
from contseg.data.pipelines.photometric import Jitter
from contseg.data.pipelines.resize import Pipeline, Sample, Size, resize_image, resize_mask, sides, swap_ids
from contseg.data.pipelines.ssseg import FreeResizeCrop, KeepRatioCrop
from contseg.errors import ContsegError, did_you_mean

__all__ = [
    "PIPELINES", "CentreCrop", "FreeResizeCrop", "Jitter", "KeepRatioCrop", "Pipeline", "RandomResizedCrop",
    "RandomScaleCrop", "WholeImage", "evaluation_pipeline", "resize_image", "resize_mask", "training_pipeline",
]  # fmt: skip


@dataclass(frozen=True)
class RandomResizedCrop:
    """Pipeline `mib` (MiB, PLOP, SDR): a random part of the image, resized to the crop; flipped half the time.

    Ten tries at an area of 0.5 to 2 times the image's and an aspect of 3/4 to 4/3; a try that does not fit is thrown
    away, so nothing is ever padded or enlarged beyond the image. After ten failures: the largest centre crop of
    allowed aspect.

    Args:
        size: of the crop in pixels: a side, or (height, width).
        flip: probability of a horizontal flip.
        mirror: pairs of ids that change places in a flip.
    """

    size: Size
    flip: float = 0.5
    area: tuple[float, float] = (0.5, 2.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: tuple[tuple[int, int], ...] = ()

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
        top, left, height, width = self._box(mask.shape[0], mask.shape[1], rng)
        window = np.s_[top : top + height, left : left + width]
        mirrored = rng.random() < self.flip
        pixels = resize_image(image[window], *sides(self.size))
        ids = resize_mask(mask[window], *sides(self.size), mirrored)
        return (pixels.flip(2), swap_ids(ids, self.mirror)) if mirrored else (pixels, ids)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = rng.uniform(*self.area) * height * width
            aspect = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        w = min(width, round(height * self.aspect[1]))
        h = min(height, round(width / self.aspect[0]))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class RandomScaleCrop:
    """Pipeline `ssul` (SSUL, IDEC, LAG): scale by 0.5 to 2, pad what is smaller than the crop, crop; flip half the time.

    Padding is black in the image and **0 in the mask** (background, not ignored), as the published runs had it, and is
    symmetric by floor((1 + deficit) / 2). Only the part of the image that the crop shows is resized.

    Args:
        size: of the crop in pixels: a side (513 in the publications), or (height, width).
        flip, mirror: as in `RandomResizedCrop`.
        scale: range of the factor.
    """

    size: Size
    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 2.0)
    mirror: tuple[tuple[int, int], ...] = ()

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
        scale = rng.uniform(*self.scale)
        vertical, horizontal = (
            _window(length, scale, side, rng) for length, side in zip(mask.shape, sides(self.size), strict=True)
        )
        pixels = torch.zeros((*sides(self.size), 3), dtype=torch.uint8).permute(2, 0, 1)
        ids = np.zeros(sides(self.size), dtype=mask.dtype)
        source = np.s_[vertical.source[0] : vertical.source[1], horizontal.source[0] : horizontal.source[1]]
        target = np.s_[vertical.target[0] : vertical.target[1], horizontal.target[0] : horizontal.target[1]]
        height = vertical.target[1] - vertical.target[0]
        width = horizontal.target[1] - horizontal.target[0]
        pixels[:, target[0], target[1]] = resize_image(image[source], height, width)
        ids[target] = resize_mask(mask[source], height, width)
        if rng.random() < self.flip:
            return pixels.flip(2), swap_ids(ids[:, ::-1], self.mirror)
        return pixels, ids


@dataclass(frozen=True)
class _Window:
    """One axis of a crop: which part of the source is seen, and where in the crop it lands."""

    source: tuple[int, int]
    target: tuple[int, int]


def _window(length: int, scale: float, side: int, rng: np.random.Generator) -> _Window:
    scaled = max(1, int(length * scale))
    pad = (1 + side - scaled) // 2 if scaled < side else 0
    start = int(rng.integers(scaled + 2 * pad - side + 1)) - pad
    shown = max(start, 0), min(start + side, scaled)
    ratio = length / scaled
    source = math.floor(shown[0] * ratio), max(math.ceil(shown[1] * ratio), math.floor(shown[0] * ratio) + 1)
    return _Window(source, (shown[0] - start, shown[1] - start))


PIPELINES: dict[str, Callable[..., Pipeline]] = {
    "mib": RandomResizedCrop,
    "ssul": RandomScaleCrop,
    "ssseg": KeepRatioCrop,
    "ssseg-lip": FreeResizeCrop,
}


def training_pipeline(
    name: str,
    crop: int | Sequence[int],
    flip: float,
    jitter: dict[str, float] | None = None,
    *,
    scale: Sequence[float] | None = None,
    resize: Sequence[int] | None = None,
    mirror: Sequence[tuple[int, int]] = (),
    void: Sequence[int] = (),
) -> Pipeline:
    """A pipeline by name, with colour jitter after it if asked for.

    Args:
        crop: a side, or (height, width).
        flip: probability of a horizontal flip.
        jitter: arguments of `Jitter`.
        scale: range of the scale factor; default: the pipeline's own.
        resize: (long, short) side that images are resized to before the scale factor; default: the pipeline's own.
        mirror: pairs of ids that change places in a flip (a dataset's `mirror`).
        void: ids that are no class (of a dataset's class table).

    Raises:
        ContsegError: no pipeline has this name, or it has no `scale` or `resize` to set.

    Example:
        >>> pipeline = training_pipeline("mib", crop=8, flip=0.5)
        >>> image, mask = pipeline(np.zeros((20, 30, 3), np.uint8), np.ones((20, 30), np.uint8), np.random.default_rng(0))
        >>> image.shape, mask.shape
        (torch.Size([3, 8, 8]), (8, 8))
    """
    if name not in PIPELINES:
        raise ContsegError(f"data.pipeline: unknown pipeline '{name}'; {did_you_mean(name, PIPELINES)}")
    kind = PIPELINES[name]
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    given = {"scale": scale, "resize": resize, "mirror": mirror or None, "void": void or None}
    for key in ("scale", "resize"):
        if given[key] is not None and key not in known:
            raise ContsegError(f"data.{key}: pipeline {name} has no such setting; leave it out, or set data.pipeline=ssseg")
    options = {key: tuple(value) for key, value in given.items() if value is not None and key in known}
    pipeline = kind(crop if isinstance(crop, int) else tuple(crop), flip, **options)
    return Jitter(pipeline, **jitter) if jitter else pipeline


@dataclass(frozen=True)
class WholeImage:
    """Evaluation on the full image at its own size (batches of one)."""

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None) -> Sample:
        return resize_image(image, *mask.shape), mask


@dataclass(frozen=True)
class CentreCrop:
    """Evaluation as MiB and PLOP do it: shorter side to the crop, centre crop, for image and mask alike.

    Raises (called):
        ContsegError: an image is so thin that it has more than `max_pixels` after that.
    """

    size: int

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None) -> Sample:
        height, width = mask.shape
        scale = self.size / min(height, width)
        tall, wide = max(self.size, round(height * scale)), max(self.size, round(width * scale))
        if tall * wide > (most := max_pixels()):
            raise ContsegError(
                f"{width}x{height} resized for data.test_crop={self.size} is {wide}x{tall}, more than {most} pixels;"
                " leave this image out, or set data.test_crop=null"
            )
        top, left = (tall - self.size) // 2, (wide - self.size) // 2
        window = np.s_[top : top + self.size, left : left + self.size]
        return resize_image(image, tall, wide)[:, window[0], window[1]], resize_mask(mask, tall, wide)[window]


def evaluation_pipeline(crop: int | None) -> Pipeline:
    """Resize + centre crop to `crop` pixels, or the whole image for None."""
    return WholeImage() if crop is None else CentreCrop(crop)

"""Pipelines by name, one per code base. They crop first and work on uint8."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from contseg.data.pipelines.centre import CentreCrop, CentreFlip, variants
from contseg.data.pipelines.photometric import Jitter
from contseg.data.pipelines.sample import (
    Layers,
    Pipeline,
    Sample,
    Size,
    cut_layers,
    resize_image,
    resize_layers,
    resize_mask,
    sides,
    swap_sides,
)
from contseg.data.pipelines.ssseg import FreeResizeCrop, KeepRatioCrop
from contseg.errors import ContsegError
from contseg.plugins import Registry

__all__ = [
    "PIPELINES", "CentreCrop", "CentreFlip", "FreeResizeCrop", "Jitter", "KeepRatioCrop", "Pipeline", "RandomResizedCrop",
    "RandomScaleCrop", "WholeImage", "evaluation_pipeline", "resize_image", "resize_mask", "training_pipeline", "variants",
]  # fmt: skip


@dataclass(frozen=True)
class RandomResizedCrop:
    """Pipeline `mib` (MiB, PLOP, SDR): a random part of the image, resized to the crop; flipped half the time.

    Ten tries at an area of 0.5 to 2 times the image's and an aspect of 3/4 to 4/3. A try that does not fit is rejected,
    so nothing is padded. After ten failures: the largest centre crop of an allowed aspect.

    Args:
        size: of the crop in pixels: a side, or (height, width).
        flip: probability of a horizontal flip.
        mirror: pairs of ids that are exchanged in a flip.
    """

    size: Size
    flip: float = 0.5
    area: tuple[float, float] = (0.5, 2.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: tuple[tuple[int, int], ...] = ()

    def __call__(self, image: np.ndarray, layers: Layers, rng: np.random.Generator) -> Sample:
        top, left, height, width = self._box(image.shape[0], image.shape[1], rng)
        window = np.s_[top : top + height, left : left + width]
        mirrored = rng.random() < self.flip
        pixels = resize_image(image[window], *sides(self.size))
        layers = resize_layers(cut_layers(layers, window), *sides(self.size), mirrored)
        return (pixels.flip(2), swap_sides(layers, self.mirror)) if mirrored else (pixels, layers)

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

    Padding is black in the image and **0 in the mask** (background, not ignored), as in the published runs, and is
    symmetric by floor((1 + deficit) / 2). Only the visible part of the image is resized.

    Args:
        size: of the crop in pixels: a side (513 in the publications), or (height, width).
        flip, mirror: as in `RandomResizedCrop`.
        scale: range of the factor.
        resize: (long, short) side of a box that images are fitted into before scaling (MBS); None scales them as they are.
    """

    size: Size
    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 2.0)
    mirror: tuple[tuple[int, int], ...] = ()
    resize: tuple[int, int] | None = None

    def __call__(self, image: np.ndarray, layers: Layers, rng: np.random.Generator) -> Sample:
        scale = rng.uniform(*self.scale)
        if self.resize is not None:
            lengths = image.shape[:2]
            scale *= min(max(self.resize) / max(lengths), min(self.resize) / min(lengths))
        vertical, horizontal = (
            _window(length, scale, side, rng) for length, side in zip(image.shape[:2], sides(self.size), strict=True)
        )
        pixels = torch.zeros((*sides(self.size), 3), dtype=torch.uint8).permute(2, 0, 1)
        padded = {name: np.zeros(sides(self.size), dtype=layer.dtype) for name, layer in layers.items()}
        source = np.s_[vertical.source[0] : vertical.source[1], horizontal.source[0] : horizontal.source[1]]
        target = np.s_[vertical.target[0] : vertical.target[1], horizontal.target[0] : horizontal.target[1]]
        height = vertical.target[1] - vertical.target[0]
        width = horizontal.target[1] - horizontal.target[0]
        pixels[:, target[0], target[1]] = resize_image(image[source], height, width)
        for name, layer in layers.items():
            padded[name][target] = resize_mask(layer[source], height, width)
        if rng.random() < self.flip:
            return pixels.flip(2), swap_sides(cut_layers(padded, np.s_[:, ::-1]), self.mirror)
        return pixels, padded


@dataclass(frozen=True)
class _Window:
    """One axis of a crop: the visible part of the source, and its place in the crop."""

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


PIPELINES: Registry[Callable[..., Pipeline]] = Registry(
    "pipelines",
    "data.pipeline",
    {
        "mib": RandomResizedCrop,
        "ssul": RandomScaleCrop,
        "ssseg": KeepRatioCrop,
        "ssseg-lip": FreeResizeCrop,
        "centre": CentreFlip,
    },
)


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
    """A pipeline by name, followed by colour jitter where `jitter` is given.

    Args:
        crop: a side, or (height, width).
        flip: probability of a horizontal flip.
        jitter: arguments of `Jitter`.
        scale: range of the scale factor; default: the pipeline's own.
        resize: (long, short) side that images are resized to before the scale factor; default: the pipeline's own.
        mirror: pairs of ids that are exchanged in a flip (a dataset's `mirror`).
        void: ids that are not classes (of a dataset's class table).

    Raises:
        ContsegError: unknown name, or the pipeline has no option `scale` or `resize`.

    Example:
        >>> pipeline = training_pipeline("mib", crop=8, flip=0.5)
        >>> image, layers = np.zeros((20, 30, 3), np.uint8), {"mask": np.ones((20, 30), np.uint8)}
        >>> image, layers = pipeline(image, layers, np.random.default_rng(0))
        >>> image.shape, layers["mask"].shape
        (torch.Size([3, 8, 8]), (8, 8))
    """
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

    def __call__(self, image: np.ndarray, layers: Layers, rng: np.random.Generator | None = None) -> Sample:
        return resize_image(image, *image.shape[:2]), layers


def evaluation_pipeline(crop: int | None) -> Pipeline:
    """`CentreCrop` of `crop` pixels, or `WholeImage` for None."""
    return WholeImage() if crop is None else CentreCrop(crop)

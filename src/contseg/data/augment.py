"""Augmentation on uint8, crop first: named pipelines, each exactly one code base's.

A pipeline turns (image (H, W, 3) uint8, mask (H, W) ids) into (image (3, S, S) uint8 tensor, mask (S, S) ids), drawing
from the generator it is given and from nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contseg.errors import ContsegError, did_you_mean

Sample = tuple[Tensor, np.ndarray]
Pipeline = Callable[[np.ndarray, np.ndarray, np.random.Generator], Sample]
_CACHED_ROWS = 64
"""Rows of a crop whose colours change at a time: as floats they fit into the processor's cache."""


def resize_image(image: np.ndarray, height: int, width: int) -> Tensor:
    """Antialiased bilinear resize of (H, W, 3) uint8 to a (3, height, width) uint8 tensor, in memory still (H, W, 3)."""
    pixels = image if image.flags.writeable and image.flags.c_contiguous else image.copy()  # PyTorch wants writable memory
    tall, wide, depth = pixels.shape
    # the stride of the batch axis, which PyTorch would set to 3, makes it see the layout and leave it as it is
    planes = torch.from_numpy(pixels).as_strided((1, depth, tall, wide), (pixels.size, 1, wide * depth, depth))
    if (tall, wide) != (height, width):
        planes = functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return planes.squeeze(0)


def resize_mask(mask: np.ndarray, height: int, width: int, mirrored: bool = False) -> np.ndarray:
    """Nearest (pixel centres) resize of ids of any integer type, flipped left to right if asked for.

    Example:
        >>> resize_mask(np.array([[1, 2], [3, 4]]), 4, 2)[:, 0]
        array([1, 1, 3, 3])
    """
    if mask.shape == (height, width):
        return mask[:, ::-1] if mirrored else mask
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.int64)
    return mask.take(columns[::-1] if mirrored else columns, axis=1).take(rows, axis=0)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Pipeline `mib` (MiB, PLOP, SDR): a random part of the image, resized to the crop; flipped half the time.

    Ten tries at an area of 0.5 to 2 times the image's and an aspect of 3/4 to 4/3; a try that does not fit is thrown
    away, so nothing is ever padded or enlarged beyond the image. After ten failures: the largest centre crop of
    allowed aspect.

    Args:
        size: side of the square crop in pixels.
        flip: probability of a horizontal flip.
    """

    size: int
    flip: float = 0.5
    area: tuple[float, float] = (0.5, 2.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
        top, left, height, width = self._box(mask.shape[0], mask.shape[1], rng)
        window = np.s_[top : top + height, left : left + width]
        mirrored = rng.random() < self.flip
        pixels = resize_image(image[window], self.size, self.size)
        return pixels.flip(2) if mirrored else pixels, resize_mask(mask[window], self.size, self.size, mirrored)

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
        size: side of the square crop in pixels (513 in the publications).
    """

    size: int
    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 2.0)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
        scale = rng.uniform(*self.scale)
        vertical = self._window(mask.shape[0], scale, rng)
        horizontal = self._window(mask.shape[1], scale, rng)
        pixels = torch.zeros((self.size, self.size, 3), dtype=torch.uint8).permute(2, 0, 1)
        ids = np.zeros((self.size, self.size), dtype=mask.dtype)
        source = np.s_[vertical.source[0] : vertical.source[1], horizontal.source[0] : horizontal.source[1]]
        target = np.s_[vertical.target[0] : vertical.target[1], horizontal.target[0] : horizontal.target[1]]
        height = vertical.target[1] - vertical.target[0]
        width = horizontal.target[1] - horizontal.target[0]
        pixels[:, target[0], target[1]] = resize_image(image[source], height, width)
        ids[target] = resize_mask(mask[source], height, width)
        return _flip(pixels, ids, self.flip, rng)

    def _window(self, length: int, scale: float, rng: np.random.Generator) -> "_Window":
        scaled = max(1, int(length * scale))
        pad = (1 + self.size - scaled) // 2 if scaled < self.size else 0
        start = int(rng.integers(scaled + 2 * pad - self.size + 1)) - pad
        shown = max(start, 0), min(start + self.size, scaled)
        ratio = length / scaled
        source = math.floor(shown[0] * ratio), max(math.ceil(shown[1] * ratio), math.floor(shown[0] * ratio) + 1)
        return _Window(source, (shown[0] - start, shown[1] - start))


@dataclass(frozen=True)
class _Window:
    """One axis of a crop: which part of the source is seen, and where in the crop it lands."""

    source: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class Jitter:
    """Colour jitter as one 3x4 matrix: brightness, contrast, saturation (factors around 1) and hue (turns).

    Args:
        pipeline: what cuts the crop before the colours change.
        brightness, contrast, saturation: half-widths of the factor's range, 0 for none.
        hue: half-width of the rotation's range, as a part of a full turn.
    """

    pipeline: Pipeline
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
        pixels, ids = self.pipeline(image, mask, rng)
        grey = np.array([0.299, 0.587, 0.114])
        brightness, contrast, saturation = (
            1 + rng.uniform(-width, width) for width in (self.brightness, self.contrast, self.saturation)
        )
        matrix = brightness * (saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * grey)
        matrix = _hue_rotation(rng.uniform(-self.hue, self.hue) * 2 * math.pi) @ matrix
        blocks = pixels.split(_CACHED_ROWS, dim=1)
        mean = torch.stack([block.float().sum(dim=(1, 2)) for block in blocks]).sum(dim=0) / pixels[0].numel()
        middle = (1 - contrast) * float(grey @ matrix @ mean.double().numpy())
        weights = torch.from_numpy(contrast * matrix).float()
        result = torch.empty(pixels.shape, dtype=torch.uint8)
        for block, target in zip(blocks, result.split(_CACHED_ROWS, dim=1), strict=True):
            turned = weights @ block.contiguous().float().flatten(1)
            target.copy_(turned.add_(middle + 0.5).clamp_(0, 255).view(block.shape))
        return result, ids


def _hue_rotation(angle: float) -> np.ndarray:
    """Rotation of the chroma plane of YIQ, as an RGB matrix."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(to_yiq) @ turn @ to_yiq


def _flip(pixels: Tensor, ids: np.ndarray, probability: float, rng: np.random.Generator) -> Sample:
    if rng.random() < probability:
        return pixels.flip(2), ids[:, ::-1]
    return pixels, ids


PIPELINES: dict[str, Callable[..., Pipeline]] = {"mib": RandomResizedCrop, "ssul": RandomScaleCrop}


def training_pipeline(name: str, crop: int, flip: float, jitter: dict[str, float] | None = None) -> Pipeline:
    """A pipeline by name, with colour jitter after it if asked for.

    Raises:
        ContsegError: no pipeline has this name.

    Example:
        >>> pipeline = training_pipeline("mib", crop=8, flip=0.5)
        >>> image, mask = pipeline(np.zeros((20, 30, 3), np.uint8), np.ones((20, 30), np.uint8), np.random.default_rng(0))
        >>> image.shape, mask.shape
        (torch.Size([3, 8, 8]), (8, 8))
    """
    if name not in PIPELINES:
        raise ContsegError(f"data.pipeline: unknown pipeline '{name}'; {did_you_mean(name, PIPELINES)}")
    pipeline = PIPELINES[name](crop, flip)
    return Jitter(pipeline, **jitter) if jitter else pipeline


@dataclass(frozen=True)
class WholeImage:
    """Evaluation on the full image at its own size (batches of one)."""

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None) -> Sample:
        return resize_image(image, *mask.shape), mask


@dataclass(frozen=True)
class CentreCrop:
    """Evaluation as MiB and PLOP do it: shorter side to the crop, centre crop, for image and mask alike."""

    size: int

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None) -> Sample:
        height, width = mask.shape
        scale = self.size / min(height, width)
        tall, wide = max(self.size, round(height * scale)), max(self.size, round(width * scale))
        top, left = (tall - self.size) // 2, (wide - self.size) // 2
        window = np.s_[top : top + self.size, left : left + self.size]
        return resize_image(image, tall, wide)[:, window[0], window[1]], resize_mask(mask, tall, wide)[window]


def evaluation_pipeline(crop: int | None) -> Pipeline:
    """Resize + centre crop to `crop` pixels, or the whole image for None."""
    return WholeImage() if crop is None else CentreCrop(crop)

"""Random colour changes: one matrix (MiB's jitter), or a sequence in RGB and HSV (SSSegmentation)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contseg.data.pipelines.sample import Layers, Pipeline, Sample
from contseg.data.recoding import look_up

_CACHED_ROWS = 64
"""Rows of a crop that are processed together: as floats they fit into the processor's cache."""


@dataclass(frozen=True)
class Jitter:
    """Colour jitter as one 3x4 matrix: brightness, contrast, saturation (factors around 1) and hue (turns).

    Args:
        pipeline: cuts the crop before the colours change.
        brightness, contrast, saturation: half-width of the factor's range, 0 for none.
        hue: half-width of the rotation's range, as a fraction of a full turn.
    """

    pipeline: Pipeline
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, image: np.ndarray, layers: Layers, rng: np.random.Generator) -> Sample:
        pixels, layers = self.pipeline(image, layers, rng)
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
        return result, layers


def _hue_rotation(angle: float) -> np.ndarray:
    """Rotation of the chroma plane of YIQ, as an RGB matrix."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(to_yiq) @ turn @ to_yiq


def distort(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue of a (3, H, W) uint8 image, each changed with probability 1/2.

    Brightness by up to 32, contrast (before or after the rest) and saturation by a factor of 0.5 to 1.5, hue by up to 18
    of 180; each result is clipped to 0..255 and truncated to whole numbers before the next change. From SSD (Liu et al.,
    ECCV 2016), as in SSSegmentation.

    Returns:
        (3, H, W) uint8.

    Example:
        >>> distort(torch.zeros((3, 2, 2), dtype=torch.uint8), np.random.default_rng(0)).shape
        torch.Size([3, 2, 2])
    """
    levels = np.arange(256.0)
    before, after = levels, levels
    if rng.random() < 0.5:
        before = _whole(before + rng.uniform(-32, 32))
    early = rng.random() < 0.5
    if rng.random() < 0.5:
        factor = rng.uniform(0.5, 1.5)
        before, after = (_whole(before * factor), after) if early else (before, _whole(after * factor))
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else None
    hue = int(rng.integers(-18, 19)) if rng.random() < 0.5 else None
    pixels = _through(before, pixels)
    if saturation is not None or hue is not None:
        pixels = turn_hsv(pixels, 1.0 if saturation is None else saturation, hue or 0)
    return _through(after, pixels)


def turn_hsv(pixels: Tensor, saturation: float = 1.0, hue: int = 0) -> Tensor:
    """A (3, H, W) uint8 image with saturation times a factor and hue rotated by `hue` of 180, through uint8 HSV."""
    result = torch.empty(pixels.shape, dtype=torch.uint8)
    for block, target in zip(pixels.split(_CACHED_ROWS, dim=1), result.split(_CACHED_ROWS, dim=1), strict=True):
        hues, saturations, values = to_hsv(block)
        if hue:
            hues = (hues + hue).remainder_(180)
        if saturation != 1:
            saturations = (saturations * saturation).clamp_(max=255).floor_()
        to_rgb(hues, saturations, values, target)
    return result


def to_hsv(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue 0..179, saturation and value 0..255 of a (3, H, W) uint8 image: whole numbers, as floats (OpenCV's convention).

    Example:
        >>> [plane.item() for plane in to_hsv(torch.tensor([[[0]], [[200]], [[100]]], dtype=torch.uint8))]
        [75.0, 255.0, 200.0]
    """
    red, green, blue = pixels.float()
    values = torch.maximum(torch.maximum(red, green), blue)
    range_ = values - torch.minimum(torch.minimum(red, green), blue)
    saturations = (range_ * 255).div_(values.clamp(min=1)).round_()
    hues = torch.where(
        values == red,
        green - blue,
        torch.where(values == green, blue - red + 2 * range_, red - green + 4 * range_),
    )
    hues = hues.mul_(30).div_(range_.clamp_(min=1)).round_()
    return hues.add_(180 * (hues < 0)), saturations, values


def to_rgb(hues: Tensor, saturations: Tensor, values: Tensor, target: Tensor) -> None:
    """The reverse of `to_hsv`, written into `target` (3, H, W) uint8."""
    sixths, chroma = hues / 30, values * saturations / 255
    for channel, start in enumerate((5, 3, 1)):
        along = (sixths + start).remainder_(6)
        share = torch.minimum(along, 4 - along).clamp_(0, 1)
        target[channel] = (values - chroma * share).add_(0.5)


def _whole(levels: np.ndarray) -> np.ndarray:
    return np.floor(levels.clip(0, 255))


def _through(levels: np.ndarray, pixels: Tensor) -> Tensor:
    """The image (3, H, W) with every grey level replaced; the same tensor if none changes."""
    table = levels.astype(np.uint8)
    if np.array_equal(table, np.arange(256)):
        return pixels
    return torch.from_numpy(look_up(table, pixels.numpy()).copy())

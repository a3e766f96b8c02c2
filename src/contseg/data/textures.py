"""Scenes of textured shapes, with a texture per class, so that a small network can distinguish many classes."""

import colorsys
from collections.abc import Sequence

import numpy as np

FRAME = 2
"""Margin in pixels that no shape covers, so that every scene has background."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples modulo 1 are evenly spread for any count, so that neighbouring class numbers get distant hues."""


def class_texture(number: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The texture of a class, (H, W, 3) float 0-255: a hue and its dark or pale shade as stripes, checks or dots.

    Hue, shade, pattern, period and direction depend on the class number only; the offset of the pattern is random.

    Args:
        number: class number.
        size: height and width.

    Example:
        >>> one, again, other = (class_texture(number, (64, 64), np.random.default_rng(0)) for number in (1, 1, 2))
        >>> one.shape, bool((one == again).all()), bool(abs(one.mean((0, 1)) - other.mean((0, 1))).max() > 20)
        ((64, 64, 3), True, True)
    """
    hue = number * GOLDEN % 1
    shade = (0.9, 0.3) if number % 2 else (0.3, 0.95)  # saturation, value
    light, dark = (255 * np.array(colorsys.hsv_to_rgb(hue, *tone)) for tone in ((0.9, 0.9), shade))
    angle, period = np.pi * (number * GOLDEN**2 % 1), 6 + 3 * (number % 4)
    y, x = np.ogrid[: size[0], : size[1]]
    along, across = (
        2 * np.pi * ((np.cos(turn) * x + np.sin(turn) * y) / period + rng.random()) for turn in (angle, angle + np.pi / 2)
    )
    patterns = (
        lambda: np.sin(along) > 0,
        lambda: np.sin(along) * np.sin(across) > 0,
        lambda: np.sin(along) + np.sin(across) > 0.3,
    )
    return np.where(patterns[number % len(patterns)]()[..., None], light, dark)


def background_texture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth grey gratings, (H, W, 3) float 0-255, of random brightness, directions and periods.

    Args:
        size: height and width.
    """
    y, x = np.ogrid[: size[0], : size[1]]
    grey = np.full(size, rng.uniform(80, 175))
    for _ in range(2):
        down, right = rng.uniform(-0.08, 0.08, 2)
        grey += rng.uniform(10, 25) * np.sin(2 * np.pi * (down * y + right * x + rng.random()))
    return grey[..., None] + rng.uniform(-10, 10, 3)


def draw_scene(
    classes: Sequence[int], size: tuple[int, int], rng: np.random.Generator, noise: float = 8
) -> tuple[np.ndarray, np.ndarray]:
    """A scene with one shape per entry of `classes`, the first in front: an image and its mask.

    Args:
        classes: class numbers of the shapes, 1 to 255, with repetitions.
        size: height and width, at least 32.
        noise: standard deviation of the pixel noise.

    Returns:
        Image (H, W, 3) uint8 and mask (H, W) uint8 of class numbers, 0 outside shapes.

    Example:
        >>> image, mask = draw_scene([3, 1], (32, 48), np.random.default_rng(0))
        >>> image.shape, sorted({*mask.ravel().tolist(), 1})
        ((32, 48, 3), [0, 1, 3])
    """
    image, shapes = draw_shapes(classes, size, rng, noise)
    return image, np.array([0, *classes], dtype=np.uint8)[shapes]


def draw_shapes(
    classes: Sequence[int], size: tuple[int, int], rng: np.random.Generator, noise: float = 8
) -> tuple[np.ndarray, np.ndarray]:
    """The scene of `draw_scene`, with the place in `classes`, from 1, of each pixel's shape in place of its class."""
    image, shapes = background_texture(size, rng), np.zeros(size, dtype=np.int64)
    for place in range(len(classes), 0, -1):
        region = _shape(size, rng)
        image[region], shapes[region] = class_texture(classes[place - 1], size, rng)[region], place
    noisy = image + noise * rng.standard_normal(image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), shapes


def _shape(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random ellipse, rectangle or triangle inside the frame, rotated by up to 30 degrees; (H, W) bool."""
    y, x = np.ogrid[: size[0], : size[1]]
    half = rng.uniform(0.2, 0.32, 2) * min(size)
    centre = [rng.uniform(max(half), side - max(half)) for side in size]
    angle = rng.uniform(-np.pi / 6, np.pi / 6)
    u = (np.cos(angle) * (x - centre[1]) + np.sin(angle) * (y - centre[0])) / half[1]
    v = (np.cos(angle) * (y - centre[0]) - np.sin(angle) * (x - centre[1])) / half[0]
    kind = rng.integers(3)
    if kind == 0:
        inside = u**2 + v**2 <= 1
    elif kind == 1:
        inside = np.maximum(abs(u), abs(v)) <= 1
    else:
        inside = (2 * abs(u) <= v + 1) & (v <= 1)
    inside[:FRAME] = inside[-FRAME:] = inside[:, :FRAME] = inside[:, -FRAME:] = False
    return inside

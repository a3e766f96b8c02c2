"""Scenes of textured shapes: a texture for every class number, so that a small network can tell many classes apart."""

import colorsys
from collections.abc import Sequence

import numpy as np

FRAME = 2
"""Pixels at each side of a scene that no shape covers, so that some background is always left."""

GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, spread evenly however many there are: numbers that are close get hues that are far apart."""


def class_texture(number: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The texture of a class, (H, W, 3) float 0-255: a hue and its dark or pale shade as stripes, checks or dots.

    Hue, shade, pattern, period and direction depend on the number alone; only the place of the pattern is drawn.

    Args:
        number: of the class.
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
    """Smooth grey gratings, (H, W, 3) float 0-255, of drawn brightness, directions and periods.

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
    """A scene with one shape per entry, the first in front of all others: an image and its mask.

    Args:
        classes: numbers of the shapes' classes, 1 to 255; a number may stand more than once.
        size: height and width, 32 at least.
        noise: standard deviation of what is added to every pixel.

    Returns:
        Image (H, W, 3) uint8 and mask (H, W) uint8 of class numbers, 0 where no shape is.

    Example:
        >>> image, mask = draw_scene([3, 1], (32, 48), np.random.default_rng(0))
        >>> image.shape, sorted({*mask.ravel().tolist(), 1})
        ((32, 48, 3), [0, 1, 3])
    """
    image, mask = background_texture(size, rng), np.zeros(size, dtype=np.uint8)
    for number in reversed(classes):
        region = _shape(size, rng)
        image[region], mask[region] = class_texture(number, size, rng)[region], number
    noisy = image + noise * rng.standard_normal(image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def _shape(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """An ellipse, rectangle or triangle somewhere inside the frame, turned by up to 30 degrees; (H, W) bool."""
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

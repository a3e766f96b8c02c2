"""From masks to polygons along the edges of pixels, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SIDES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""The neighbours (x, y) of a pixel: above, right, below, left."""
_ENDS = np.array([(1, 0), (1, 1), (0, 1), (0, 0)])
"""The corner of a pixel at which each of its sides ends, clockwise."""


@dataclass(frozen=True)
class Region:
    """Connected pixels of one value; pixels that only share a corner are not connected.

    Attributes:
        value: the value in the mask.
        outline: (N, 2) int64, corners x, y of the outer border in pixels, clockwise from the top left; 0 is the left or
            upper edge of the image.
        holes: outlines of the holes, each (N, 2) int64, anticlockwise.
        filled: pixels within the outer border.
        pixels: pixels of the region.
    """

    value: int
    outline: np.ndarray
    holes: tuple[np.ndarray, ...]
    filled: int
    pixels: int


def regions(mask: np.ndarray) -> list[Region]:
    """The connected regions of a mask, the largest outlines first.

    A region that is enclosed by another comes after it, so drawing all outlines in this order gives the mask.

    Args:
        mask: (H, W) integers.

    Example:
        >>> ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
        >>> [(one.value, one.outline.tolist(), len(one.holes), one.pixels) for one in regions(ring)]
        [(1, [[0, 0], [3, 0], [3, 3], [0, 3]], 1, 8), (0, [[1, 1], [2, 1], [2, 2], [1, 2]], 0, 1)]
    """
    mask = np.asarray(mask)
    width = mask.shape[1]
    side, pixel, following, turns = _borders(mask)
    loops = _cycles(following)
    edges = np.array([edge for loop in loops for edge in loop])
    loop_of = np.repeat(np.arange(len(loops)), [len(loop) for loop in loops])
    corners = edges[turns[edges]]
    x, y = pixel[corners] % width + _ENDS[side[corners], 0], pixel[corners] // width + _ENDS[side[corners], 1]
    bounds = np.flatnonzero(np.diff(loop_of[turns[edges]])) + 1
    outlines = [np.roll(points, 1, axis=0) for points in np.split(np.stack([x, y], axis=1), bounds)]
    areas = [_area(points) for points in outlines]

    # The nearest border to the left of a hole is the outer one, or that of a hole that starts further left.
    owner = list(range(len(loops)))
    loop_at = np.empty(len(edges), dtype=np.int64)
    loop_at[edges] = loop_of
    left_sides = np.flatnonzero(side == 3)
    before = edges[side[edges] == 1]  # pixels with the hole on their right
    first: dict[int, int] = {}
    for loop, one in zip(loop_at[before].tolist(), before.tolist(), strict=True):
        if areas[loop] < 0 and (loop not in first or pixel[one] % width < pixel[first[loop]] % width):
            first[loop] = one
    for loop, one in sorted(first.items(), key=lambda pair: pixel[pair[1]] % width):
        nearest = left_sides[np.searchsorted(pixel[left_sides], pixel[one], side="right") - 1]
        owner[loop] = owner[loop_at[nearest]]
    holes: dict[int, list[int]] = {}
    for loop in first:
        holes.setdefault(owner[loop], []).append(loop)
    found = []
    for loop, area in enumerate(areas):
        if area > 0:
            own = holes.get(loop, ())
            value = int(mask.flat[pixel[loops[loop][0]]])
            pixels = area + sum(areas[hole] for hole in own)
            found.append(Region(value, outlines[loop], tuple(outlines[hole] for hole in own), area, pixels))
    return sorted(found, key=lambda region: -region.filled)


def fill(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The pixels whose centre is in an odd number of polygons: (height, width) bool.

    Args:
        polygons: each (N, 2), corners x, y in pixels; parts beyond the image are cut off.

    Example:
        >>> fill([np.array([[1, 0], [3, 0], [3, 1], [1, 1]])], 2, 4).astype(int)
        array([[0, 1, 1, 0],
               [0, 0, 0, 0]])
    """
    toggles = np.zeros(height * (width + 1), dtype=np.int64)
    for points in polygons:
        (x0, y0), (x1, y1) = np.asarray(points, dtype=float).T, np.roll(np.asarray(points, dtype=float), -1, axis=0).T
        first, last = (np.ceil(np.clip(edge(y0, y1), 0, height) - 0.5).astype(int) for edge in (np.minimum, np.maximum))
        edge = np.repeat(np.arange(len(x0)), last - first)  # an edge changes the rows whose centre it passes
        row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
        rise = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
        column = np.ceil(np.clip(x0[edge] + rise * (x1 - x0)[edge], 0, width) - 0.5).astype(int)
        toggles += np.bincount(row * (width + 1) + column, minlength=len(toggles))
    return np.logical_xor.accumulate(toggles.reshape(height, width + 1)[:, :-1] % 2 == 1, axis=1)


def draw(mask: np.ndarray, polygon: np.ndarray, value: int) -> None:
    """Write a value into the pixels of a mask (H, W) whose centre is in a polygon (N, 2) of corners x, y in pixels.

    Example:
        >>> mask = np.zeros((2, 3), dtype=np.uint8)
        >>> draw(mask, np.array([[0.4, 0], [2, 0], [2, 2], [0.4, 2]]), 7)
        >>> mask
        array([[7, 7, 0],
               [7, 7, 0]], dtype=uint8)
    """
    low = np.clip(np.floor(polygon.min(axis=0)), 0, mask.shape[::-1]).astype(int)
    high = np.clip(np.ceil(polygon.max(axis=0)), 0, mask.shape[::-1]).astype(int)
    part = mask[low[1] : high[1], low[0] : high[0]]
    part[fill([polygon - low], *part.shape)] = value


def _area(points: np.ndarray) -> int:
    """The area within an outline, negative for an anticlockwise one."""
    x, y = points[:, 0], points[:, 1]
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2


def _borders(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The sides of pixels next to another value or to the edge of the image, E of them.

    A border has its region on the right, so outer borders are clockwise and borders of holes anticlockwise.

    Returns:
        The side of each (index of `_SIDES`), its pixel, the next one along the border, and whether the border turns there.
    """
    height, width = mask.shape
    border = np.ones((4, height, width), dtype=bool)
    border[0, 1:] = border[2, :-1] = mask[1:] != mask[:-1]
    border[1, :, :-1] = border[3, :, 1:] = mask[:, 1:] != mask[:, :-1]
    size = height * width
    codes = np.flatnonzero(border)
    flat = border.reshape(4, size)
    side, pixel = np.divmod(codes, size)
    offset = np.array([y * width + x for x, y in _SIDES])
    right = (side + 1) % 4
    turns_right = flat[right, pixel]
    ahead = np.where(turns_right, pixel, pixel + offset[right])
    straight = ~turns_right & flat[side, ahead]
    after = np.select(
        [turns_right, straight],
        [right * size + pixel, side * size + ahead],
        (side + 3) % 4 * size + ahead + offset[side],
    )
    return side, pixel, np.searchsorted(codes, after), ~straight


def _cycles(following: np.ndarray) -> list[list[int]]:
    """The cycles of a permutation, each from its smallest element."""
    after = following.tolist()
    visited = bytearray(len(after))
    cycles = []
    for start in range(len(after)):
        if not visited[start]:
            cycle = [start]
            visited[start] = 1
            while not visited[one := after[cycle[-1]]]:
                visited[one] = 1
                cycle.append(one)
            cycles.append(cycle)
    return cycles

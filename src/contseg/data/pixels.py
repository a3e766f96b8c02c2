"""From the values stored in an image file to (H, W, 3) uint8: choice of bands and range of values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contseg.errors import ContsegError

CHOOSE_BANDS = "choose three (or one) with data.options.bands=[1, 2, 3], predict: --bands 1,2,3"
CHOOSE_RANGE = "set the values that become 0 and 255 with data.options.range=[LOW, HIGH], predict: --range LOW,HIGH"
_ROWS = 512
"""Rows that are rescaled together, so that a whole image is never in memory as floats."""


@dataclass(frozen=True)
class Reading:
    """How the values of a file become 8-bit RGB.

    Args:
        bands: numbers, from 1, of the three bands that become red, green and blue, or of the one that becomes grey. Empty:
            the colours that the file declares; a file with more bands than colours is refused.
        range: the values that become 0 and 255; values outside are clipped. None: the full range of the type, so that 16
            bits are divided by 257, and floats range from 0 to 1. Signed integers and 32 bits have no such default.

    Raises:
        ContsegError: `bands` are not one or three numbers, or `range` is not (low, high).

    Example:
        >>> Reading.of(bands=[4, 3, 2], range=[0, 4095])
        Reading(bands=(4, 3, 2), range=(0, 4095))
    """

    bands: tuple[int, ...] = ()
    range: tuple[float, float] | None = None

    @classmethod
    def of(cls, bands: Any = None, range: Any = None) -> "Reading":
        """Check values of a recipe; None selects the default."""
        if bands is not None and not (
            isinstance(bands, Sequence) and len(bands) in (1, 3) and all(type(band) is int and band >= 1 for band in bands)
        ):
            raise ContsegError(f"bands: expected the numbers of three bands, or of one, from 1 (got {bands!r})")
        if range is not None and not (
            isinstance(range, Sequence)
            and len(range) == 2
            and all(isinstance(value, int | float) and not isinstance(value, bool) for value in range)
            and -math.inf < range[0] < range[1] < math.inf
        ):
            raise ContsegError(f"range: expected [LOW, HIGH], the values that become 0 and 255 (got {range!r})")
        return cls(tuple(bands or ()), None if range is None else (range[0], range[1]))


AS_STORED = Reading()


def full_range(kind: str, bits: int) -> tuple[float, float] | None:
    """The values of a type that become 0 and 255 by default; None if there is no default.

    Args:
        kind: `u` unsigned, `i` signed, `f` float.

    Example:
        >>> full_range("u", 16), full_range("f", 32), full_range("i", 16)
        ((0, 65535), (0, 1), None)
    """
    if kind == "f":
        return 0, 1
    return (0, 2**bits - 1) if kind == "u" and bits <= 16 else None


def choose_bands(values: np.ndarray, bands: Sequence[int]) -> np.ndarray:
    """Select bands by number, from 1: (H, W, C) to (H, W, 3) or (H, W, 1); all bands if `bands` is empty.

    Raises:
        ContsegError: a band does not exist.
    """
    if not bands:
        return values
    if max(bands) > values.shape[2]:
        raise ContsegError(f"has {values.shape[2]} bands, no band {max(bands)}; {CHOOSE_BANDS}")
    return values[..., [band - 1 for band in bands]]


def rescale(values: np.ndarray, bounds: tuple[float, float] | None, default: tuple[float, float] | None) -> np.ndarray:
    """Values (H, W, C) as (H, W, 3) uint8, a single band repeated: `bounds` become 0 and 255, rounded and clipped.

    Args:
        bounds: (low, high); None: `default`.
        default: see `full_range`.

    Raises:
        ContsegError: neither is given, or floats exceed the default (the message has their range). NaN becomes 0.

    Example:
        >>> rescale(np.array([[[0], [257], [65535]]], dtype=np.uint16), None, (0, 65535))[0, :, 0]
        array([  0,   1, 255], dtype=uint8)
        >>> rescale(np.array([[[-1.0], [np.nan], [2.0]]]), (-1, 1), (0, 1))[0, :, 0]
        array([  0,   0, 255], dtype=uint8)
    """
    if bounds is None:
        if default is None or values.dtype.kind == "f":
            known = values[~np.isnan(values)]
            low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
            if default is None or not default[0] <= low <= high <= default[1]:
                raise ContsegError(f"has {values.dtype} values from {low:g} to {high:g}; {CHOOSE_RANGE}")
        bounds = default
    low, high = bounds
    if values.dtype in (np.uint8, np.uint16):
        every = np.arange(np.iinfo(values.dtype).max + 1)
        table = _scaled(every, low, high)
    out = np.empty((*values.shape[:2], 3), dtype=np.uint8)
    for top in range(0, len(values), _ROWS):
        part = values[top : top + _ROWS]
        out[top : top + _ROWS] = table[part] if values.dtype in (np.uint8, np.uint16) else _scaled(part, low, high)
    return out


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.clip((values.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    return np.rint(np.nan_to_num(scaled, copy=False)).astype(np.uint8)

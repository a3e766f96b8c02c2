"""How many pixels an image may have: checked in headers, before memory is allocated."""

import os
from pathlib import Path

from contseg.errors import ContsegError

_MAX_PIXELS = 178_956_970
"""Pillow's limit for decompression bombs: twice the pixels of a quarter gigabyte of RGB."""


def max_pixels() -> int:
    """The most pixels that an image may have: of `set_max_pixels`, the variable `CONTSEG_MAX_PIXELS`, or 178 956 970.

    Raises:
        ContsegError: the variable is not a number.
    """
    value = os.environ.get("CONTSEG_MAX_PIXELS", "")
    try:
        return int(value) if value else _MAX_PIXELS
    except ValueError:
        raise ContsegError(f"CONTSEG_MAX_PIXELS: {value!r} is not a number of pixels") from None


def set_max_pixels(count: int | None, key: str) -> None:
    """Set `max_pixels` for this process and its children (None: no change).

    Args:
        key: begins the error.

    Raises:
        ContsegError: the number is not positive.
    """
    if count is None:
        return
    if type(count) is not int or count < 1:
        raise ContsegError(f"{key}: {count!r} is not a number of pixels; use a whole number from 1")
    os.environ["CONTSEG_MAX_PIXELS"] = str(count)  # worker processes inherit it


def require_size(path: Path, height: int, width: int) -> None:
    """Raise ContsegError if an image has more than `max_pixels`."""
    if height * width > (most := max_pixels()):
        raise ContsegError(
            f"{path}: {width}x{height} is more than {most} pixels; cut it into parts, or if memory allows"
            f" set data.max_pixels={height * width} (predict: --max-pixels {height * width} --slide 512)"
        )

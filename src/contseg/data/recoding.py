"""From the values of an official mask file to the ids of a class table."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contseg.errors import ContsegError, counted


class Recoding:
    """A table from raw mask values to dataset ids; values that are not in the table raise an error.

    Args:
        ids: raw value to dataset id.

    Example:
        >>> recode = Recoding({7: 1, 8: 2, 0: 255})
        >>> recode(np.array([[7, 8, 0]], dtype=np.uint8), Path("mask.png"))
        array([[  1,   2, 255]], dtype=uint8)
    """

    def __init__(self, ids: Mapping[int, int]):
        self._known = np.zeros(65536, dtype=bool)
        self._known[list(ids)] = True
        self._table = np.zeros(65536, dtype=np.uint8 if max(ids.values()) < 256 else np.uint16)
        self._table[list(ids)] = list(ids.values())

    def __call__(self, raw: np.ndarray, path: Path) -> np.ndarray:
        """The mask in dataset ids, of the shape of `raw` (any unsigned integers up to 65535).

        Raises:
            ContsegError: `raw` contains values that are not in the table; the message has `path`, values and pixels.
        """
        counts = count_ids(raw)
        strange = np.flatnonzero((counts > 0) & ~self._known[: len(counts)])
        if len(strange):
            raise ContsegError(
                f"{path}: unknown values: {describe_counts(strange, counts[strange])};"
                " is it a mask of another dataset or another coding?"
            )
        return look_up(self._table, raw)


def look_up(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """`table[ids]`, five times as fast where both are bytes, as ids are not widened to indices.

    Args:
        table: at least 256 entries.
        ids: (H, W), any unsigned integers below the table's length.

    Returns:
        (H, W) of the table's type, possibly read-only.

    Example:
        >>> look_up(np.arange(256, dtype=np.uint8)[::-1], np.array([[0, 255]], dtype=np.uint8))
        array([[255,   0]], dtype=uint8)
    """
    if table.dtype == ids.dtype == np.uint8:
        # twice as fast as `bytes.translate`, which also finds out whether anything has changed
        translated = bytearray(np.ascontiguousarray(ids)).translate(table[:256].tobytes())
        return np.frombuffer(translated, dtype=np.uint8).reshape(ids.shape)
    return table[ids]


def count_ids(mask: np.ndarray) -> np.ndarray:
    """Pixels of each id: `np.bincount` over runs of equal pixels, of which masks have few.

    Args:
        mask: (H, W) uint8 or uint16, possibly empty.

    Returns:
        (N,) int64, N at least 256.

    Example:
        >>> count_ids(np.array([[7, 7, 7], [7, 0, 0]], dtype=np.uint8))[[0, 7]]
        array([2, 4])
    """
    pixels = mask.ravel()
    ends = np.flatnonzero(pixels[1:] != pixels[:-1])
    if not pixels.size or len(ends) > pixels.size // 16:
        return np.bincount(pixels, minlength=256)
    lengths = np.empty(len(ends) + 1, dtype=np.int64)
    lengths[:-1], lengths[-1] = ends, pixels.size - 1
    values = pixels.take(lengths)
    lengths[1:] -= lengths[:-1].copy()
    lengths[0] += 1
    return np.bincount(values, lengths, minlength=256).astype(np.int64)


def describe_counts(values: np.ndarray, pixels: np.ndarray, most: int = 5) -> str:
    """Values with their pixel counts, for a message.

    Example:
        >>> describe_counts(np.array([7, 9]), np.array([12, 1]))
        '7 (12 pixels), 9 (1 pixel)'
    """
    listed = ", ".join(
        f"{value} ({counted(count, 'pixel')})" for value, count in zip(values[:most], pixels[:most], strict=True)
    )
    return listed + (f" and {len(values) - most} more" if len(values) > most else "")

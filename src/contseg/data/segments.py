"""Segments of an image: the class and the number of the object that each pixel belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CROWD = 65535
"""Number of regions in which objects of a class are not distinguished ("crowd"). They are neither learned nor missed."""


@dataclass(frozen=True)
class SegmentMap:
    """The segments of an image. Pixels of equal class and number are one segment; classes without objects have one.

    Args:
        classes: (H, W) integers, the class of each pixel; a value outside 0..K-1, such as 255 or -1, is no class:
            not annotated in the truth ("void"), undecided in a prediction.
        numbers: (H, W) integers, 0 or more where there is a class; `CROWD` marks crowds. They need not be consecutive,
            and may repeat in segments of different classes.

    Example:
        >>> two = SegmentMap(np.array([[1, 1, 1, 255]]), np.array([[1, 1, 2, 0]]))
        >>> two.areas(2)
        [(1, 1, 2), (1, 2, 1)]
    """

    classes: np.ndarray
    numbers: np.ndarray

    def __post_init__(self) -> None:
        assert self.classes.shape == self.numbers.shape, "a class and a number for each pixel"

    @classmethod
    def of_ids(cls, ids_HW: np.ndarray, classes: Sequence[int]) -> "SegmentMap":
        """From the places of segments in a list of their classes; below 0 is no segment.

        Example:
            >>> SegmentMap.of_ids(np.array([[0, 1, -1]]), [7, 7]).areas(8)
            [(7, 0, 1), (7, 1, 1)]
        """
        table = np.array([*classes, -1], dtype=np.int64)
        return cls(table[np.where(ids_HW < 0, len(classes), ids_HW)], np.maximum(ids_HW, 0))

    def areas(self, classes: int) -> list[tuple[int, int, int]]:
        """Class, number and pixels of every segment, in the order of both.

        Args:
            classes: number of classes K.
        """
        keys = segment_keys(self, np.ones(classes, dtype=bool))
        found, pixels = np.unique(keys[keys >= 0], return_counts=True)
        rows = zip(found.tolist(), pixels.tolist(), strict=True)
        return [(key >> NUMBER_BITS, key & (1 << NUMBER_BITS) - 1, count) for key, count in rows]


NUMBER_BITS = 32


def segment_keys(segments: SegmentMap, things: np.ndarray) -> np.ndarray:
    """One number per pixel and segment: (H, W) int64, class * 2^32 + number, and -1 where there is no class.

    The number of stuff is 0, so that all its pixels are one segment, except crowds.

    Args:
        things: (K,) bool, whether a class has objects.

    Example:
        >>> segments = SegmentMap(np.array([[0, 1, 2]]), np.array([[7, 7, 0]]))
        >>> segment_keys(segments, np.array([False, True])).tolist() == [[0, (1 << 32) + 7, -1]]
        True
    """
    classes, numbers = segments.classes.astype(np.int64), segments.numbers.astype(np.int64)
    inside = (classes >= 0) & (classes < len(things))
    there = np.where(inside, classes, 0)
    numbers = np.where(things[there] | (numbers == CROWD), numbers, 0)
    assert not ((numbers < 0) & inside).any(), "numbers of segments are 0 or more"
    return np.where(inside, there << NUMBER_BITS | numbers, -1)

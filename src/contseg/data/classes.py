"""Class tables: what the numbers in a mask mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contseg.errors import ContsegError

IGNORE = 255
Colour = tuple[int, int, int]


def voc_palette(count: int = 256) -> list[Colour]:
    """The bit-interleaved palette of PASCAL VOC: the bits of an id dealt to red, green and blue, highest first.

    Example:
        >>> voc_palette(4)
        [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    """
    colours = []
    for number in range(count):
        red = green = blue = 0
        for bit in range(8):
            red |= (number >> (3 * bit) & 1) << (7 - bit)
            green |= (number >> (3 * bit + 1) & 1) << (7 - bit)
            blue |= (number >> (3 * bit + 2) & 1) << (7 - bit)
        colours.append((red, green, blue))
    return colours


@dataclass(frozen=True)
class ClassTable:
    """Names, mask ids and colours of a dataset's classes; the first entry is background, id 0.

    Args:
        names: one name per class, background first.
        ids: the mask value of each class, in the same order; at most 65535, and never 255, which means "ignore".
        colours: RGB, 0-255, one per class.
        background: `annotated` where a 0 in a mask was looked at and is truly nothing (VOC), `unlabelled` where it
            only means that nobody named the pixel (ADE20K); label policies treat the two differently at test time.

    Raises:
        ContsegError: lengths differ, names or ids repeat, or the first id is not 0.

    Example:
        >>> table = ClassTable.of(["background", "cat", "dog"])
        >>> table.index_of("dog"), table.ids, table.colours[1]
        (2, (0, 1, 2), (128, 0, 0))
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colours: tuple[Colour, ...]
    background: Literal["annotated", "unlabelled"] = "annotated"

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.ids) == len(self.colours):
            raise ContsegError(
                f"class table: {len(self.names)} names, {len(self.ids)} ids, {len(self.colours)} colours; give one each"
            )
        if not self.ids or self.ids[0] != 0:
            raise ContsegError(f"class table: the first id is {self.ids[:1]}; background must come first with id 0")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ContsegError(f"class table: the name '{repeated[0]}' stands more than once; names tell classes apart")
        if not all(0 <= number < 65536 for number in self.ids):
            raise ContsegError(f"class table: ids {self.ids}: masks hold 0 to 65535")
        if len(set(self.ids)) != len(self.ids) or IGNORE in self.ids:
            raise ContsegError(f"class table: ids {self.ids} repeat or contain {IGNORE}, which means 'ignore'")

    @classmethod
    def of(cls, names: Sequence[str], background: Literal["annotated", "unlabelled"] = "annotated") -> "ClassTable":
        """A table with ids 0, 1, 2, ... (stepping over 255) and the VOC palette."""
        ids = [number for number in range(len(names) + 1) if number != IGNORE][: len(names)]
        colours = voc_palette()
        return cls(tuple(names), tuple(ids), tuple(colours[number % 256] for number in ids), background)

    def __len__(self) -> int:
        return len(self.names)

    def index_of(self, name: str) -> int:
        """Position of a class by name.

        Raises:
            ContsegError: no class has this name.
        """
        if name not in self.names:
            raise ContsegError(f"class '{name}': not in the class table; known: {', '.join(self.names)}")
        return self.names.index(name)

    def subset(self, ids: Sequence[int]) -> "ClassTable":
        """The table of the given mask ids, in the given order; the first must be background.

        Example:
            >>> ClassTable.of(["background", "cat", "dog"]).subset([0, 2]).names
            ('background', 'dog')
        """
        rows = [self.ids.index(number) for number in ids]
        return ClassTable(
            tuple(self.names[row] for row in rows),
            tuple(ids),
            tuple(self.colours[row] for row in rows),
            self.background,
        )

    def known_values(self) -> np.ndarray:
        """Boolean array over all mask values 0..65535: the ids of this table and 255."""
        known = np.zeros(65536, dtype=bool)
        known[list(self.ids)] = True
        known[IGNORE] = True
        return known

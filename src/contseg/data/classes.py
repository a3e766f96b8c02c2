"""Class tables: the meaning of the values in a mask."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import zip_longest
from typing import Literal

import numpy as np

from contseg.errors import ContsegError, did_you_mean

IGNORE = 255
UNDECIDED = -1
"""In a prediction: a pixel that belongs to no class. Only networks that classify masks leave pixels undecided."""
Colour = tuple[int, int, int]
_LINE_ENDS = re.compile("[\x00\n\r\v\f\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")
"""Characters that end lines in lists of names, and those that no text file can contain."""
Background = Literal["annotated", "unlabelled", "unscored", "none"]


def voc_palette(count: int = 256) -> list[Colour]:
    """The bit-interleaved palette of PASCAL VOC: bits of the id are distributed over red, green and blue, highest first.

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


def class_differences(names: Sequence[str], expected: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Positions at which two lists of classes differ, with both names in quotes; "nothing" beyond the end of a list.

    Example:
        >>> list(class_differences(["cat", "dog"], ["cat", "cow", "hen"]))
        [(1, "'dog'", "'cow'"), (2, 'nothing', "'hen'")]
    """
    for place, pair in enumerate(zip_longest(names, expected)):
        if pair[0] != pair[1]:
            one, other = (f"'{name}'" if name is not None else "nothing" for name in pair)
            yield place, one, other


@dataclass(frozen=True)
class ClassTable:
    """Names, mask ids and colours of a dataset's classes; background, if there is one, is the first entry and has id 0.

    Args:
        names: one name per class, background first.
        ids: the mask value of each class, in the same order; at most 65535, and never 255, which means "ignore".
        colours: RGB, 0-255, one per class.
        background: the meaning of 0 in a mask:
            `annotated`: annotated background (VOC);
            `unlabelled`: pixels without annotation (ADE20K);
            `unscored`: pixels that a step does not annotate, never scored (Cityscapes and ISPRS in steps by class; a
            folder of one's own in which 0 marks pixels without annotation);
            `none`: no background output; every entry is an ordinary class.
        void: further known mask values that are not classes. They are ignored, except in training with a background, where
            they are part of it.
        things: ids of the classes whose objects are distinguished by a label layer `instances`; the others are stuff. Empty
            where the dataset has no such layer.

    Raises:
        ContsegError: lengths differ, names or ids repeat, a name is empty or more than one line,
            a colour is out of range, the table has a background and its first id is not 0, or a thing is not a class.

    Example:
        >>> table = ClassTable.of(["background", "cat", "dog"])
        >>> table.index_of("dog"), table.ids, table.colours[1]
        (2, (0, 1, 2), (128, 0, 0))
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colours: tuple[Colour, ...]
    background: Background = "annotated"
    void: tuple[int, ...] = ()
    things: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.ids) == len(self.colours):
            raise ContsegError(
                f"class table: {len(self.names)} names, {len(self.ids)} ids, {len(self.colours)} colours; give one each"
            )
        if not self.ids or (self.has_background and self.ids[0] != 0):
            raise ContsegError(f"class table: the first id is {self.ids[:1]}; background must come first with id 0")
        for name in self.names:
            if not name.strip() or _LINE_ENDS.search(name):
                raise ContsegError(f"class table: {name!r} is empty, or not one line of text; use another name")
        if not all(0 <= value <= 255 for colour in self.colours for value in colour):
            raise ContsegError(f"class table: colours {self.colours}: values must be 0 to 255")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ContsegError(f"class table: the name '{repeated[0]}' occurs more than once; names must be unique")
        if not all(0 <= number < 65536 for number in (*self.ids, *self.void)):
            raise ContsegError(f"class table: ids {self.ids}: ids must be 0 to 65535")
        if len(set(self.ids)) != len(self.ids) or IGNORE in self.ids or set(self.ids) & set(self.void):
            raise ContsegError(f"class table: ids {self.ids} repeat or contain {IGNORE}, which means 'ignore'")
        if strange := sorted(set(self.things) - set(self.foreground)):
            raise ContsegError(f"class table: thing {strange[0]} is not the id of a class; things are classes with objects")

    @classmethod
    def of(cls, names: Sequence[str], background: Background = "annotated") -> "ClassTable":
        """A table with ids 0, 1, 2, ... (skipping 255) and the VOC palette."""
        ids = [number for number in range(len(names) + 1) if number != IGNORE][: len(names)]
        colours = voc_palette()
        return cls(tuple(names), tuple(ids), tuple(colours[number % 256] for number in ids), background)

    @classmethod
    def official(cls, name: str, background: Background, things: bool = False) -> "ClassTable":
        """A dataset's own table, from `tables/NAME.csv` in the package.

        Args:
            things: whether the objects of its things are distinguished.

        Example:
            >>> ClassTable.official("cityscapes", "unscored").names[:3]
            ('background', 'road', 'sidewalk')
        """
        text = (files("contseg.data") / "tables" / f"{name}.csv").read_text(encoding="utf-8")
        rows = list(csv.reader(text.splitlines()[1:]))
        colours = tuple((int(red), int(green), int(blue)) for _, _, red, green, blue, *_ in rows)
        objects = tuple(int(row[0]) for row in rows if things and row[5] == "thing")
        return cls(tuple(row[1] for row in rows), tuple(int(row[0]) for row in rows), colours, background, things=objects)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_background(self) -> bool:
        """Whether the first entry is background."""
        return self.background != "none"

    @property
    def foreground(self) -> tuple[int, ...]:
        """The ids of all classes but background."""
        return self.ids[1:] if self.has_background else self.ids

    @property
    def is_thing(self) -> np.ndarray:
        """Whether the objects of each class are distinguished: (classes,) bool.

        Example:
            >>> ClassTable(("sky", "car"), (3, 5), ((9, 9, 9), (0, 0, 9)), "none", things=(5,)).is_thing
            array([False,  True])
        """
        return np.isin(self.ids, self.things)

    @property
    def void_outputs(self) -> tuple[int, ...]:
        """Positions that are no class of segments: a background that only marks what is not annotated.

        Example:
            >>> [ClassTable.of(["background", "cat"], kind).void_outputs for kind in ("annotated", "unlabelled")]
            [(), (0,)]
        """
        return (0,) if self.background in ("unlabelled", "unscored") else ()

    def index_of(self, name: str) -> int:
        """Position of a class by name.

        Raises:
            ContsegError: no class has this name.
        """
        if name not in self.names:
            raise ContsegError(f"class '{name}': not in the class table; {did_you_mean(name, self.names)}")
        return self.names.index(name)

    def subset(self, ids: Sequence[int]) -> "ClassTable":
        """The table of the given mask ids, in the given order; background, if there is one, must be the first.

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
            self.void,
            tuple(number for number in self.things if number in ids),
        )

    def without_background(self) -> "ClassTable":
        """The same classes without background: id 0 is void and ignored.

        Example:
            >>> table = ClassTable.of(["background", "cat", "dog"]).without_background()
            >>> table.names, table.ids, table.void
            (('cat', 'dog'), (1, 2), (0,))
        """
        if not self.has_background:
            return self
        return ClassTable(self.names[1:], self.ids[1:], self.colours[1:], "none", (0, *self.void), self.things)

    def with_unscored_background(self) -> "ClassTable":
        """The same classes with an unscored background of id 0 in front, for steps that do not annotate everything.

        Example:
            >>> table = ClassTable(("road", "car"), (1, 2), ((9, 9, 9), (0, 0, 9)), "none").with_unscored_background()
            >>> table.names, table.ids, table.background
            (('background', 'road', 'car'), (0, 1, 2), 'unscored')
        """
        if self.has_background:
            return self
        name = next(one for one in ("background", "not annotated", "elsewhere") if one not in self.names)
        void = tuple(number for number in self.void if number)
        colours = ((0, 0, 0), *self.colours)
        return ClassTable((name, *self.names), (0, *self.ids), colours, "unscored", void, self.things)

    def known_values(self) -> np.ndarray:
        """Boolean array over all mask values 0..65535: the ids of this table, void ones and 255."""
        known = np.zeros(65536, dtype=bool)
        known[[*self.ids, *self.void]] = True
        known[IGNORE] = True
        return known

"""Label policies: the conventions by which code bases turn a full mask into what one step may see.

The conventions differ silently between code bases, so they have names here, and each is one lookup table:

| policy | role | 255 in the mask | raw 0 | old classes | later classes |
|---|---|---|---|---|---|
| `mib` | train | **background** | background | background | background |
| `mib` | val | ignored | background¹ | ignored | ignored |
| `mib` | test | ignored | background¹ | kept | **ignored** |
| `plop` | train, val | ignored | background | background | background |
| `plop` | test | ignored | background² | kept | **background**² |

¹ ignored where nobody annotated background (ADE20K). ² ignored with `ignore_test_background`.

In the setting `sequential` training and validation labels keep old classes too (SDR); with annotated background (VOC)
every value then stays, 255 included, with unannotated background everything else is treated as in `mib`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contseg.data.classes import IGNORE, ClassTable
from contseg.errors import ContsegError

Role = Literal["train", "val", "test"]
PolicyName = Literal["mib", "plop"]
SettingName = Literal["disjoint", "overlapped", "sequential"]


@dataclass(frozen=True)
class LabelPolicy:
    """How the labels of one step are made.

    Args:
        name: `mib` (MiB, SDR) or `plop` (PLOP, cssegmentation).
        ignore_test_background: PLOP's option for ADE20K: background and unseen classes are not scored.

    Example:
        >>> table = ClassTable.of(["background", "cat", "dog", "fox"])
        >>> LabelPolicy("plop").lookup(table, table.ids, (2,), (0, 1), "train", "overlapped")[[0, 1, 2, 3, 255]]
        array([  0,   0,   2,   0, 255], dtype=uint8)
    """

    name: PolicyName = "plop"
    ignore_test_background: bool = False

    def lookup(
        self,
        classes: ClassTable,
        order: Sequence[int],
        new: Sequence[int],
        old: Sequence[int],
        role: Role,
        setting: SettingName,
    ) -> np.ndarray:
        """Training id of every mask value: (65536,) uint8; the training id of a class is its position in `order`.

        Args:
            classes: the dataset's table.
            order: all class ids in the order of presentation.
            new, old: class ids of this step and of earlier steps (background among those of step 0).

        Raises:
            ContsegError: more classes than 8-bit labels can hold.
        """
        if len(order) > IGNORE:
            raise ContsegError(f"scenario: {len(order)} classes; training ids are 8-bit with 255 for ignore, so 255 at most")
        table = np.full(65536, self._elsewhere(role), dtype=np.uint8)
        table[IGNORE] = 0 if self.name == "mib" and role == "train" else IGNORE
        table[0] = self._background(classes, role)
        kept = set(new) | (set(old) if role == "test" else set())
        if setting == "sequential" and role != "test":
            kept |= set(old)
            if classes.background == "annotated":
                kept, table[IGNORE] = set(order), IGNORE
        for position, number in enumerate(order):
            if number in kept and number != 0:
                table[number] = position
        return table

    def _elsewhere(self, role: Role) -> int:
        """Classes that this step does not name."""
        if self.name == "mib":
            return 0 if role == "train" else IGNORE
        return IGNORE if role == "test" and self.ignore_test_background else 0

    def _background(self, classes: ClassTable, role: Role) -> int:
        if self.name == "mib":
            return 0 if role == "train" or classes.background == "annotated" else IGNORE
        return IGNORE if role == "test" and self.ignore_test_background else 0

"""Label policies: the conventions by which code bases derive the labels of one step from a full mask.

The conventions differ between code bases, so they have names here, and each is one lookup table:

| policy | role | 255 in the mask | raw 0 | old classes | later classes |
|---|---|---|---|---|---|
| `mib` | train | **background** | background | background | background |
| `mib` | val | ignored | background¹ | ignored | ignored |
| `mib` | test | ignored | background¹ | kept | **ignored** |
| `plop` | train, val | ignored | background | background | background |
| `plop` | test | ignored | background² | kept | **background**² |
| `ssul` | train | ignored | **unknown**³ | unknown³ | unknown³ |
| `ssul` | val | ignored | background | background | background |
| `ssul` | test | ignored | background² | kept | kept⁴ |

¹ ignored if background is not annotated (ADE20K). ² ignored with `ignore_test_background`. ³ with saliency maps: unknown
where salient, background elsewhere. ⁴ their labels are beyond the outputs of the step, so they are not counted.

Training labels of `ssul` number the outputs `[unknown, background, class 1, class 2, ...]`; validation and test labels are
numbered `[background, class 1, ...]` as in every policy, because predictions add unknown to background.

If a step does not annotate old classes, the scenario replaces the background of `val` by a label beyond the outputs (see
`Step`), because the pixel may belong to an old class, and predicting that class is not an error.

A background that is `unscored` (Cityscapes, ISPRS) is ignored in validation and test under every policy, and so are unseen
classes. Without a background (`none`), classes of other steps are ignored. Void values are treated like classes of other
steps in training, and ignored in testing.

In the setting `sequential` training and validation labels keep old classes too (SDR); with annotated background (VOC)
every value is kept, including 255; with unannotated background, all other values are treated as in `mib`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contseg.data.classes import IGNORE, ClassTable
from contseg.errors import ContsegError

Role = Literal["train", "val", "test"]
PolicyName = Literal["mib", "plop", "ssul"]
SettingName = Literal["disjoint", "overlapped", "sequential", "partitioned"]

UNKNOWN, BACKGROUND = 0, 1
"""The first outputs of `ssul` in training."""


@dataclass(frozen=True)
class LabelPolicy:
    """The rule for the labels of one step.

    Args:
        name: `mib` (MiB, SDR), `plop` (PLOP, cssegmentation) or `ssul` (SSUL, IDEC, LAG).
        ignore_test_background: PLOP's option for ADE20K: background and unseen classes are not scored.

    Example:
        >>> table = ClassTable.of(["background", "cat", "dog", "fox"])
        >>> LabelPolicy("plop").lookup(table, table.ids, (2,), (0, 1), "train", "overlapped")[[0, 1, 2, 3, 255]]
        array([  0,   0,   2,   0, 255], dtype=uint8)
        >>> LabelPolicy("ssul").lookup(table, table.ids, (2,), (0, 1), "train", "overlapped")[[0, 1, 2, 3, 255]]
        array([  0,   0,   3,   0, 255], dtype=uint8)
    """

    name: PolicyName = "plop"
    ignore_test_background: bool = False

    @property
    def has_unknown(self) -> bool:
        """Whether training labels have an output "unknown" before background."""
        return self.name == "ssul"

    @property
    def tests_every_image(self) -> bool:
        """Whether test images without a seen class are included (SSUL, IDEC, LAG)."""
        return self.name == "ssul"

    def lookup(
        self,
        classes: ClassTable,
        order: Sequence[int],
        new: Sequence[int],
        old: Sequence[int],
        role: Role,
        setting: SettingName,
        leaked: Sequence[int] = (),
    ) -> np.ndarray:
        """Training id of every mask value: (65536,) uint8; the training id of a class is its position in `order`.

        Args:
            classes: the dataset's table.
            order: all class ids in the order of presentation.
            new, old: class ids of this step and of earlier steps (background belongs to step 0).
            leaked: later classes that are annotated all the same, in training.

        Raises:
            ContsegError: more classes than 8-bit labels can represent.
        """
        outputs = len(order) + self.has_unknown
        if outputs > IGNORE:
            raise ContsegError(f"scenario: {outputs} outputs; training ids are 8-bit with 255 for ignore, so 255 at most")
        table = np.full(65536, self._elsewhere(classes, role), dtype=np.uint8)
        if role == "test":
            table[list(classes.void)] = IGNORE
        table[IGNORE] = 0 if self.name == "mib" and role == "train" and classes.has_background else IGNORE
        table[0] = self._zero(classes, role)
        kept = set(new) | set(old if role == "test" else leaked if role == "train" else ())
        if self.name == "ssul" and role == "test":
            kept = set(order)
        if setting == "sequential" and role != "test":
            kept |= set(old)
            if classes.background == "annotated":
                kept, table[IGNORE] = set(order), IGNORE
        for position, number in enumerate(order):
            if number in kept and not (number == 0 and classes.has_background):
                table[number] = position
        return with_unknown(table) if self.has_unknown and role == "train" else table

    def _elsewhere(self, classes: ClassTable, role: Role) -> int:
        """The label of classes that do not belong to this step."""
        if not classes.has_background:
            return IGNORE
        if role == "test":
            ignored = self.ignore_test_background or classes.background == "unscored" or self.name != "plop"
            return IGNORE if ignored else 0
        return IGNORE if self.name == "mib" and role == "val" else 0

    def _zero(self, classes: ClassTable, role: Role) -> int:
        """The label of background, or of a 0 that is not a class."""
        if not classes.has_background:
            return IGNORE
        if role == "train":
            return 0
        if classes.background == "unscored" or (role == "test" and self.ignore_test_background):
            return IGNORE
        return IGNORE if self.name == "mib" and classes.background == "unlabelled" else 0


def with_unknown(table: np.ndarray) -> np.ndarray:
    """Insert the output "unknown" into a lookup table: class labels move up by one, background becomes unknown.

    Example:
        >>> with_unknown(np.array([0, 1, 2, 255], dtype=np.uint8))
        array([  0,   2,   3, 255], dtype=uint8)
    """
    return np.where((table == 0) | (table == IGNORE), table, table + 1).astype(np.uint8)


def without_salience(labels: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Replace unknown by background in training labels (H, W) where nothing is salient.

    Args:
        saliency: (H, W), above 0 where something is salient.
    """
    return np.where((labels == UNKNOWN) & (saliency == 0), np.uint8(BACKGROUND), labels)

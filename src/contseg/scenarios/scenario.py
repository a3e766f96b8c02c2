"""A scenario: the steps of a continual run, from a dataset, a split and a setting."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset
from contseg.data.presence import Presence, Progress, build_presence
from contseg.errors import ContsegError
from contseg.scenarios.batch import Samples
from contseg.scenarios.orders import class_order
from contseg.scenarios.policy import LabelPolicy, PolicyName, Role, SettingName
from contseg.scenarios.selection import select
from contseg.scenarios.splits import parse_split


class ScenarioOptions(BaseModel):
    """What is learned when.

    Attributes:
        split: classes per step ("15-1", "2-2-1", "offline").
        scored_as: the split whose class groups (old / new) an `offline` run is scored with; default: its own.
        setting: which images a step may use.
        order: order of the classes, see `class_order`.
        policy: label conventions, see `LabelPolicy`.
        ignore_test_background: do not score background and unseen classes (ADE20K under policy `plop`).
        validation: share of each step's training images held out, for `keep: best`.
        seed: of the held-out choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    split: str = "offline"
    scored_as: str | None = None
    setting: Literal["disjoint", "overlapped", "sequential"] = "overlapped"
    order: str | list[int | str] = "natural"
    policy: Literal["mib", "plop"] = "plop"
    ignore_test_background: bool = False
    validation: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """One step: what is new, what is known, and the samples to learn, select and test on.

    Class tuples hold dataset ids; the output (and training id) of a class is its position in `seen_classes`.
    """

    index: int
    new_classes: tuple[int, ...]
    old_classes: tuple[int, ...]
    train: Samples
    val: Samples
    test: Samples
    table: ClassTable = field(repr=False)
    domain: str | None = None

    @property
    def seen_classes(self) -> tuple[int, ...]:
        """Old classes, then new ones."""
        return self.old_classes + self.new_classes

    @property
    def old_count(self) -> int:
        """Outputs before this step, background among them; 0 at step 0."""
        return len(self.old_classes)

    @property
    def new_count(self) -> int:
        """Outputs added by this step; at step 0 background is one of them."""
        return len(self.new_classes)

    @property
    def seen_count(self) -> int:
        """Outputs after this step."""
        return len(self.old_classes) + len(self.new_classes)


class Scenario(Sequence[Step]):
    """The sequence of steps.

    Example:
        >>> from contseg.data.digits import Digits
        >>> scenario = Scenario(Digits(train=40, test=10), ScenarioOptions(split="5-1"))
        >>> len(scenario), scenario[1].new_classes, scenario[1].old_count
        (6, (6,), 6)

    Raises:
        ContsegError: the split does not fit, the order is wrong, or a step has no image.
    """

    def __init__(self, dataset: SegmentationDataset, options: ScenarioOptions, progress: Progress | None = None):
        self.dataset, self.options = dataset, options
        widths = parse_split(options.split, len(dataset.classes) - 1)
        self.order = class_order(options.order, dataset.classes, dataset.name, options.split)
        if not 0 <= options.validation < 1:
            raise ContsegError(f"scenario.validation: {options.validation} is no share; give a number from 0 to below 1")
        self.policy = LabelPolicy(options.policy, options.ignore_test_background)
        if options.scored_as and options.split != "offline":
            raise ContsegError("scenario.scored_as: only the split offline can be scored as another; leave it out")
        self.groups = class_groups(options.scored_as or options.split, self.order)
        self.train_presence = build_presence(dataset, "train", progress=progress)
        self.test_presence = build_presence(dataset, "test", progress=progress)
        ends = list(accumulate(widths, initial=0))
        self._steps = [
            self._make_step(index, self._classes_between(start, end), self.order[: start + 1] if index else ())
            for index, (start, end) in enumerate(pairwise(ends))
        ]

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index):
        return self._steps[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def lookup(self, new: tuple[int, ...], old: tuple[int, ...], role: Role) -> np.ndarray:
        """The label map of a role in a step: (65536,) uint8."""
        return self.policy.lookup(self.dataset.classes, self.order, new, old, role, self.options.setting)

    def _classes_between(self, start: int, end: int) -> tuple[int, ...]:
        """Positions start+1 .. end of the order; step 0 also brings background."""
        return self.order[start + 1 : end + 1] if start else self.order[: end + 1]

    def _make_step(self, index: int, new: tuple[int, ...], old: tuple[int, ...]) -> Step:
        rows = select(self.train_presence, new, old, self.options.setting)
        if not len(rows):
            names = ", ".join(self.dataset.classes.names[self.dataset.classes.ids.index(number)] for number in new)
            raise ContsegError(
                f"scenario: step {index} ({names}) has no training image in setting {self.options.setting};"
                " use another setting, split or order"
            )
        train_rows, val_rows = self._hold_out(rows, index)
        test_rows = select(self.test_presence, tuple(old) + tuple(new), (), "overlapped")
        annotated = np.isin(old + new, new if self.options.setting != "sequential" else old + new)
        if self.dataset.classes.background == "unlabelled" or self.options.setting != "sequential":
            annotated[0] = False  # a 0 only says that nothing of the annotated classes is there

        def samples(presence: Presence, rows: np.ndarray, role: Role) -> Samples:
            names = tuple(presence.names[row] for row in rows)
            return Samples(self.dataset, names, self.lookup(new, old, role), annotated)

        return Step(
            index=index,
            new_classes=new,
            old_classes=old,
            train=samples(self.train_presence, train_rows, "train"),
            val=samples(self.train_presence, val_rows, "val"),
            test=samples(self.test_presence, test_rows, "test"),
            table=self.dataset.classes.subset(old + new),
        )

    def _hold_out(self, rows: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Split off `validation` of the rows, seeded by the step; both parts stay in list order."""
        held = round(self.options.validation * len(rows))
        if not held:
            return rows, rows[:0]
        if held == len(rows):
            raise ContsegError(
                f"scenario.validation: {self.options.validation} of the {held} images of step {index} leaves none to train"
            )
        shuffled = np.random.default_rng([self.options.seed, index]).permutation(len(rows))
        return rows[np.sort(shuffled[held:])], rows[np.sort(shuffled[:held])]


def class_groups(split: str, order: tuple[int, ...]) -> tuple[int, ...]:
    """The step that brings each class of the order: (classes,) with 0 for background and the classes of step 0.

    Example:
        >>> class_groups("2-1", (0, 1, 2, 3, 4))
        (0, 0, 0, 1, 2)
    """
    widths = parse_split(split, len(order) - 1)
    return (0, *(step for step, width in enumerate(widths) for _ in range(width)))


__all__ = ["PolicyName", "Scenario", "ScenarioOptions", "SettingName", "Step", "class_groups"]

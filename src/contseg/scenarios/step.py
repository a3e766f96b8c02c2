"""One step of a scenario."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset
from contseg.errors import ContsegError
from contseg.scenarios.batch import Samples
from contseg.scenarios.policy import LabelPolicy, Role


@dataclass(frozen=True)
class Step:
    """One step: new and old classes, and the samples for training, validation and testing.

    Class tuples contain dataset ids; the output of a class is its position in `seen_classes`, plus one if the first output
    is unknown.

    Attributes:
        index: 0 for the first.
        new_classes, old_classes: classes of this step and of earlier ones; a later step by domain has no new classes.
        train, val, test: samples for training, held-out samples, and test samples (of all seen classes). Held-out samples
            have the labels of the step. If these contain no old class, background has the label `seen_count` there: "none
            of the annotated classes", which may be background or an old class.
        table: table of the seen classes.
        domains: domains of the training images; empty if the scenario does not use domains.
        memory: exemplars of earlier steps, one part per step, with the labels of that step.
        has_unknown: whether the first output is "unknown" (label policy `ssul`).
    """

    index: int
    new_classes: tuple[int, ...]
    old_classes: tuple[int, ...]
    train: Samples
    val: Samples
    test: Samples
    table: ClassTable = field(repr=False)
    domains: tuple[str, ...] = ()
    memory: tuple[Samples, ...] = ()
    has_unknown: bool = False

    @classmethod
    def of(
        cls,
        classes: ClassTable | Sequence[str],
        old: int = 0,
        *,
        dataset: SegmentationDataset | None = None,
        train: Sequence[str] = (),
        test: Sequence[str] = (),
        index: int | None = None,
        policy: LabelPolicy | None = None,
        annotated: Sequence[int] = (),
    ) -> "Step":
        """Make a step without a scenario, from lists of classes and samples.

        Args:
            classes: all classes seen after the step, in output order: names, background first, or a table such as
                `dataset.classes.subset(ids)`.
            old: how many of them are old, including background.
            dataset: dataset of `train` and `test`; its masks have the ids of `classes`.
            train, test: names of samples. Training labels have new classes only, as in the setting `overlapped`, and the
                classes in `annotated`.
            index: index of the step; default: 0 without old classes, otherwise 1.
            policy: label policy; default: `LabelPolicy("plop")`.
            annotated: ids of old classes that the training images annotate too. With background among them, pixels without
                another label are truly background.

        Raises:
            ContsegError: `old` exceeds the number of classes, or there are samples but no dataset.

        Example:
            >>> step = Step.of(["background", "cat", "dog"], old=2)
            >>> step.index, step.new_classes, step.old_count, step.seen_count, len(step.train)
            (1, (2,), 2, 3, 0)
        """
        table = classes if isinstance(classes, ClassTable) else ClassTable.of(list(classes))
        if not 0 <= old <= len(table):
            raise ContsegError(f"Step.of: {old} old classes of {len(table)}; give at most {len(table)}")
        if dataset is None and (train or test):
            raise ContsegError("Step.of: samples are read from a dataset; give dataset=")
        policy, own = policy or LabelPolicy(), table if dataset is None else dataset.classes
        order = (*table.ids, *(number for number in own.ids if number not in table.ids))
        marked = np.arange(len(table)) >= max(old, int(table.has_background))  # a 0 may hide any other class
        marked |= np.isin(table.ids, annotated)
        unknown = int(policy.has_unknown)

        def samples(names: Sequence[str], role: Role, marked: np.ndarray) -> Samples:
            lookup = policy.lookup(own, order, (*annotated, *table.ids[old:]), table.ids[:old], role, "overlapped")
            things = np.isin(table.ids, own.things) if dataset is not None and dataset.has_instances else None
            if things is not None and role == "train":
                things = np.concatenate([np.zeros(unknown, bool), things])
            return Samples(dataset, tuple(names), lookup, marked, things=things)  # type: ignore[arg-type]  # no names

        return cls(
            index=int(old > 0) if index is None else index,
            new_classes=table.ids[old:],
            old_classes=table.ids[:old],
            train=samples(train, "train", np.concatenate([np.zeros(unknown, bool), marked])),
            val=samples((), "val", marked),
            test=samples(test, "test", np.ones(len(table), bool)),
            table=table,
            has_unknown=policy.has_unknown,
        )

    @property
    def seen_classes(self) -> tuple[int, ...]:
        """Old classes, followed by new ones."""
        return self.old_classes + self.new_classes

    @property
    def old_count(self) -> int:
        """Classes before this step, including background; 0 at step 0."""
        return len(self.old_classes)

    @property
    def new_count(self) -> int:
        """Classes added by this step, at step 0 including background."""
        return len(self.new_classes)

    @property
    def seen_count(self) -> int:
        """Classes after this step."""
        return len(self.old_classes) + len(self.new_classes)

    @property
    def old_outputs(self) -> int:
        """Outputs before this step: old classes, and unknown if there is one; 0 at step 0."""
        return self.old_count + int(self.has_unknown) if self.old_count else 0

    @property
    def foreground(self) -> int:
        """The first output of a foreground class, after background, and unknown if there is one."""
        return 1 + int(self.has_unknown)

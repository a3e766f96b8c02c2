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
    """One step: what is new, what is known, and the samples to learn, select and test on.

    Class tuples hold dataset ids; the place of a class among the outputs is its position in `seen_classes`, plus one where
    the outputs begin with the unknown.

    Attributes:
        index: 0 for the first.
        new_classes, old_classes: of this step and of earlier ones; a step that brings a domain has no new ones.
        train, val, test: what is learned, held out, and measured after the step (everything seen so far). Held-out images
            have the labels of the step. Where these name no old class, what would be background has the label
            `seen_count`: "none of the classes that are annotated here", which may be background or an old class.
        table: of the seen classes.
        domains: of the training images; empty where the dataset tells none or the scenario does not care.
        memory: exemplars of earlier steps, a part per step, with the labels they had there.
        has_unknown: the outputs begin with "unknown" (label policy `ssul`).
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
    ) -> "Step":
        """A step without a scenario: its classes and samples are listed by hand.

        Args:
            classes: all classes seen after the step, in output order: names, background first, or a table such as
                `dataset.classes.subset(ids)`.
            old: how many of them earlier steps brought, background included.
            dataset: where `train` and `test` are read; its masks have the ids of `classes`.
            train, test: names of samples. Training masks show the new classes only, as in the setting `overlapped`.
            index: of the step; default: 0 without old classes, 1 with some.
            policy: how masks become labels; default: `LabelPolicy("plop")`.

        Raises:
            ContsegError: there are fewer classes than old ones, or samples without a dataset.

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
        unknown = int(policy.has_unknown)

        def samples(names: Sequence[str], role: Role, annotated: np.ndarray) -> Samples:
            lookup = policy.lookup(own, order, table.ids[old:], table.ids[:old], role, "overlapped")
            return Samples(dataset, tuple(names), lookup, annotated)  # type: ignore[arg-type]  # none only without names

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
        """Old classes, then new ones."""
        return self.old_classes + self.new_classes

    @property
    def old_count(self) -> int:
        """Classes before this step, background among them; 0 at step 0."""
        return len(self.old_classes)

    @property
    def new_count(self) -> int:
        """Classes added by this step; at step 0 background is one of them."""
        return len(self.new_classes)

    @property
    def seen_count(self) -> int:
        """Classes after this step."""
        return len(self.old_classes) + len(self.new_classes)

    @property
    def old_outputs(self) -> int:
        """Outputs before this step: the old classes, and the unknown if there is one; 0 at step 0."""
        return self.old_count + int(self.has_unknown) if self.old_count else 0

    @property
    def foreground(self) -> int:
        """The first output that stands for a class: those before it are background, and the unknown if there is one."""
        return 1 + int(self.has_unknown)

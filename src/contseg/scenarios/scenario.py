"""A scenario: the steps of a continual run, made from a dataset, a split and a setting."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from contseg.data.dataset import SegmentationDataset, SubsetName, require_folder
from contseg.data.presence import Presence, Progress, build_presence
from contseg.errors import ContsegError
from contseg.scenarios.balanced_memory import Balance
from contseg.scenarios.batch import Samples
from contseg.scenarios.domains import divide_pool, domain_order
from contseg.scenarios.memory import Exemplar, select_exemplars
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.orders import class_order
from contseg.scenarios.policy import LabelPolicy, Role
from contseg.scenarios.selection import limit, partition, read_step_lists, select
from contseg.scenarios.splits import parse_split
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class _Outline:
    """A step before its samples are made: classes, domains and rows of the presence tables."""

    new: tuple[int, ...]
    old: tuple[int, ...]
    domains: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray


class Scenario(Sequence[Step]):
    """The sequence of steps.

    Args:
        progress: progress of the presence scan.
        first_is_known: step 0 needs no training images, as a trained segmenter is used in its place.

    Attributes:
        dataset, options, policy: as given; in steps by class, a dataset without background gets an unscored one.
        order: all class ids in order of presentation; the position of a class is its training id.
        groups: the step that adds each class of `order`; 0 for background.
        has_background: whether the first class is a background, which splits and metrics leave out.
        domains: domains of the options, in order of presentation; they are measured separately.
        train_presence, test_presence: pixels of each class in each image.

    Example:
        >>> from contseg.data.datasets.digits import Digits
        >>> scenario = Scenario(Digits(train=40, test=10), ScenarioOptions(split="5-1"))
        >>> len(scenario), scenario[1].new_classes, scenario[1].old_count
        (6, (6,), 6)

    Raises:
        ContsegError: the split does not fit, an order, list or domain is wrong, or a step has no images.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        options: ScenarioOptions,
        progress: Progress | None = None,
        first_is_known: bool = False,
    ):
        dataset = _with_background_for_steps(dataset, options)
        self.dataset, self.options, self._first_is_known = dataset, options, first_is_known
        if not 0 <= options.validation < 1:
            raise ContsegError(f"scenario.validation: {options.validation} is not a share; use 0 or more, less than 1")
        if options.variant == "released" and options.by == "class" and dataset.has_instances:
            raise ContsegError(
                f"scenario.variant: released annotates a class of the next step in semantic labels, and {dataset.name} has"
                " instances, where published code does not; remove it"
            )
        if options.scored_as and options.split != "offline":
            raise ContsegError("scenario.scored_as: only split offline can be scored as another; remove it")
        self.order = class_order(options.order, dataset.classes, dataset.name, options.split)
        self.policy = LabelPolicy(options.policy, options.ignore_test_background)
        self._saliency = (
            require_folder(Path(options.saliency), "a folder of saliency maps, NAME.png") if options.saliency else None
        )
        split = options.scored_as or ("offline" if self._by_domain else options.split)
        self.has_background = dataset.classes.has_background and not dataset.counts_background
        self.groups = class_groups(split, self.order, self.has_background)
        self.domains = domain_order(dataset, options.domains) if self._by_domain or options.domains else ()
        make_outlines = self._outline_domains if self._by_domain else self._outline_classes
        outlines = make_outlines(progress)
        self._steps: list[Step] = []
        self._kept: list[Exemplar] = []
        self._balance = Balance(options.memory.size if options.memory else 0)
        for outline in outlines:
            self._steps.append(self._make_step(outline))

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index):
        return self._steps[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def head(self, steps: int, images: int, others: int) -> "Scenario":
        """The first steps with few of their images, for a dry run; labels, order and groups stay the same.

        Args:
            images: maximum number of training images per step; the first ones are used.
            others: maximum number of held-out images, of test images, and of images of each part of the memory.

        Example:
            >>> from contseg.data.datasets.digits import Digits
            >>> short = Scenario(Digits(train=40, test=10), ScenarioOptions(split="5-1")).head(2, images=4, others=1)
            >>> [(len(step.train), len(step.test), step.new_count) for step in short]
            [(4, 1, 6), (4, 1, 1)]
        """

        def first(samples: Samples, count: int) -> Samples:
            return replace(samples, names=samples.names[:count])

        short = copy.copy(self)
        short._steps = [
            replace(
                step,
                train=first(step.train, images),
                val=first(step.val, others),
                test=first(step.test, others),
                memory=tuple(first(part, others) for part in step.memory),
            )
            for step in self._steps[:steps]
        ]
        return short

    @property
    def _by_domain(self) -> bool:
        return self.options.by == "domain"

    def _presence(self, subset: SubsetName, progress: Progress | None) -> Presence:
        return build_presence(self.dataset, subset, progress=progress)

    def _domains_of(self, presence: Presence) -> np.ndarray:
        return np.array([self.dataset.domain_of(name) for name in presence.names], dtype=object)

    def _outline_classes(self, progress: Progress | None) -> list[_Outline]:
        """Steps by class, each from one domain if the options list domains."""
        table, options = self.dataset.classes, self.options
        widths = parse_split(options.split, len(self.order) - self.has_background)
        if len(widths) > 1 and not table.has_background:
            raise ContsegError(
                f"scenario.split: '{options.split}' needs a background for what a step does not annotate, and"
                f" {self.dataset.name} was opened without one; set data.options.background=true"
            )
        ends = list(accumulate(widths, initial=int(self.has_background)))
        named = [self.order[start:end] for start, end in pairwise([0, *ends[1:]])]
        self.train_presence, self.test_presence = self._presence("train", progress), self._presence("test", progress)
        domains = self._domain_of_each_step(len(named))
        train_domains, test_domains = self._domains_of(self.train_presence), self._domains_of(self.test_presence)
        offset = self.dataset.selection_offset
        divided: list[np.ndarray] | None = None
        if options.lists:
            divided = read_step_lists(Path(options.lists), len(named), self.train_presence.names)
        elif options.setting == "partitioned":
            divided = partition(self.train_presence, named)
        outlines = []
        for index, new in enumerate(named):
            old = tuple(number for earlier in named[:index] for number in earlier)
            seen = old + new
            train = divided[index] if divided else select(self.train_presence, new, old, options.setting, offset)
            test = np.arange(len(self.test_presence.names))
            if not self.policy.tests_every_image and table.has_background:
                test = select(self.test_presence, seen, (), "overlapped")
            if domains:
                train = train[train_domains[train] == domains[index]]
                test = test[np.isin(test_domains[test], domains[: index + 1])]
            outlines.append(_Outline(new, old, domains[index : index + 1], train, test))
        return outlines

    def _domain_of_each_step(self, steps: int) -> tuple[str, ...]:
        """The domain of every step; () if the options list no domains."""
        order = self.domains
        if len(order) > steps:
            raise ContsegError(f"scenario.domains: {len(order)} domains for {steps} steps; list at most one per step")
        return order + order[-1:] * (steps - len(order)) if order else ()

    def _outline_domains(self, progress: Progress | None) -> list[_Outline]:
        """Steps by domain; all classes are known from step 0."""
        order = self.domains
        widths = parse_split(self.options.split, len(order), "domains")
        steps = [order[start:end] for start, end in pairwise(accumulate(widths, initial=0))]
        train, test = self._presence("train", progress), self._presence("test", progress)
        train_domains, test_domains = self._domains_of(train), self._domains_of(test)
        rows: list[tuple[np.ndarray, np.ndarray]]
        if set(order) <= set(train_domains) and set(order) <= set(test_domains):
            if self.options.variant == "released":
                raise ContsegError(
                    f"scenario.variant: released is for datasets that are not divided by domain; {self.dataset.name} is"
                )
            self.train_presence, self.test_presence = train, test
            rows = [
                (
                    np.flatnonzero(np.isin(train_domains, names)),
                    np.flatnonzero(np.isin(test_domains, [name for part in steps[: index + 1] for name in part])),
                )
                for index, names in enumerate(steps)
            ]
        else:
            self.train_presence = self.test_presence = train.joined(test)
            domains = np.concatenate([train_domains, test_domains])
            rows = divide_pool(domains, steps, self.options.variant == "released")
        first = [self.order] + [()] * (len(steps) - 1)
        return [
            _Outline(new, self.order if index else (), names, *rows[index])
            for index, (new, names) in enumerate(zip(first, steps, strict=True))
        ]

    def _make_step(self, outline: _Outline) -> Step:
        index, options = len(self._steps), self.options
        rows = outline.train
        if index and options.ratio < 1:
            chooser = np.random.default_rng([options.seed, index, 1]) if options.ratio_choice == "random" else None
            rows = limit(rows, options.ratio, chooser)
        if not len(rows) and not (self._first_is_known and index == 0):
            raise ContsegError(self._no_image(index, outline))
        train_rows, val_rows = self._hold_out(rows, index)
        seen = outline.old + outline.new
        named = seen if self._by_domain or options.setting == "sequential" else outline.new
        annotated = self._annotated(named, seen)
        hides_old = not set(outline.old[1:]) <= set(named)

        def samples(presence: Presence, rows: np.ndarray, role: Role) -> Samples:
            names = tuple(presence.names[row] for row in rows)
            new, old = (seen, ()) if self._by_domain else (outline.new, outline.old)
            leaked = self._leaked(outline)
            lookup = self.policy.lookup(self.dataset.classes, self.order, new, old, role, options.setting, leaked)
            things = self._things(seen, role)
            if role == "train":
                return Samples(self.dataset, names, lookup, annotated, self._saliency, things)
            if role == "test":
                return Samples(self.dataset, names, lookup, self._tested(seen, outline.test), things=things)
            if hides_old:
                # beyond the outputs; with 255 classes there is no such label, and these pixels are ignored
                lookup = np.where(lookup == 0, len(seen), lookup).astype(np.uint8)
            return Samples(self.dataset, names, lookup, annotated[int(self.policy.has_unknown) :], things=things)

        return Step(
            index=index,
            new_classes=outline.new,
            old_classes=outline.old,
            train=samples(self.train_presence, train_rows, "train"),
            val=samples(self.train_presence, val_rows, "val"),
            test=samples(self.test_presence, outline.test, "test"),
            table=self.dataset.classes.subset(seen),
            domains=outline.domains,
            memory=self._remember(len(annotated)) if index and options.memory else (),
            has_unknown=self.policy.has_unknown,
        )

    def _no_image(self, index: int, outline: _Outline) -> str:
        table, options = self.dataset.classes, self.options
        if options.ratio < 1 and len(outline.train):
            return (
                f"scenario.ratio: {options.ratio} of the {len(outline.train)} images of step {index} are none; increase it"
            )
        name_of = dict(zip(table.ids, table.names, strict=True))
        what = ", ".join(name_of[number] for number in outline.new) or ", ".join(outline.domains)
        where = f" in domain {outline.domains[0]}" if outline.new and outline.domains else ""
        start = f"scenario: step {index} ({what}) has no training image"
        presence = self.train_presence
        holding = dict(zip(presence.ids, (presence.pixels > 0).sum(axis=0).tolist(), strict=True))
        there = sum(presence.contains(outline.new).tolist())
        if outline.new and not there:
            found = [f"{number} ({name_of[number]})" for number, count in holding.items() if count]
            held = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
            wanted = ", ".join(f"{number} ({name_of[number]})" for number in outline.new)
            return (
                f"{start}: the training masks contain the ids {held} and never {wanted}; write masks with the ids of the"
                " class list, or leave the class out of it"
            )
        although = f", although {there} training images contain it" if outline.new else ""
        return f"{start} in setting {options.setting}{where}{although}; use another setting, split or order"

    def _annotated(self, named: Sequence[int], seen: Sequence[int]) -> np.ndarray:
        """Whether the class of each output is annotated: (outputs,) bool."""
        table = self.dataset.classes
        marked = np.isin(seen, named)
        if table.has_background:
            # otherwise a 0 only means that none of the annotated classes is there
            complete = self._by_domain or self.options.setting == "sequential"
            marked[0] = complete and table.background == "annotated"
        return np.concatenate([[False], marked]) if self.policy.has_unknown else marked

    def _leaked(self, outline: _Outline) -> tuple[int, ...]:
        """The class of the next step that the training images annotate too, which has no output yet; usually none."""
        if self._by_domain or self.options.variant == "paper":
            return ()
        seen = len(outline.old) + len(outline.new)
        return self.order[seen : seen + 1]

    def _things(self, seen: Sequence[int], role: Role) -> np.ndarray | None:
        """Which training ids have objects that are distinguished: (outputs,) bool; None if the dataset has no such layer."""
        if not self.dataset.has_instances:
            return None
        things = np.isin(seen, self.dataset.classes.things)
        return np.concatenate([[False], things]) if self.policy.has_unknown and role == "train" else things

    def _tested(self, seen: Sequence[int], rows: np.ndarray) -> np.ndarray:
        """Whether the test masks annotate each seen class: (seen,) bool.

        A class without a pixel in the whole dataset is taken as not annotated, such as the old classes of an existing
        segmenter in a user's images. If 0 only means unlabelled, so is a class without a pixel in the test images.
        """
        table = self.dataset.classes
        if not table.has_background:
            return np.ones(len(seen), dtype=bool)
        pixels = self.test_presence.pixels[rows].sum(axis=0)
        if table.background != "unlabelled":
            pixels = self.test_presence.pixels.sum(axis=0) + self.train_presence.pixels.sum(axis=0)
        marked = pixels[[table.ids.index(number) for number in seen]] > 0
        marked[0] = table.background == "annotated" and marked[1:].all()
        return marked

    def _hold_out(self, rows: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Hold out the share `validation` of the rows, seeded by the step; both parts stay in list order."""
        held = round(self.options.validation * len(rows))
        if not held:
            return rows, rows[:0]
        if held == len(rows):
            raise ContsegError(
                f"scenario.validation: {self.options.validation} of the {held} images of step {index} leaves none to train"
            )
        shuffled = np.random.default_rng([self.options.seed, index]).permutation(len(rows))
        return rows[np.sort(shuffled[held:])], rows[np.sort(shuffled[:held])]

    def _remember(self, outputs: int) -> tuple[Samples, ...]:
        """The memory after the last step made, chosen from its images and the previous memory: one part per step.

        Args:
            outputs: outputs of the step that uses it.
        """
        assert self.options.memory is not None
        last = self._steps[-1]
        classes = range(int(last.table.has_background), last.seen_count)
        seeds = np.random.RandomState([self.options.memory.seed, last.index + 1])
        if self.options.memory.choice == "balanced":
            self._kept = self._balance.choose(self._seen_in(last), self._kept, last.seen_count, last.old_count)
        else:
            self._kept = select_exemplars(self._seen_in(last) + self._kept, classes, self.options.memory.size, seeds)
        parts = []
        for step in sorted({exemplar.step for exemplar in self._kept}):
            there = self._steps[step].train
            annotated = np.zeros(outputs, dtype=bool)
            annotated[: len(there.annotated)] = there.annotated
            names = tuple(exemplar.name for exemplar in self._kept if exemplar.step == step)
            parts.append(Samples(self.dataset, names, there.lookup, annotated, there.saliency, there.things))
        return tuple(parts)

    def _seen_in(self, step: Step) -> list[Exemplar]:
        """The training images of a step, with the annotated classes that they contain."""
        rows = self.train_presence.rows_of(step.train.names)
        marked = np.flatnonzero(step.train.annotated[int(step.has_unknown) :])
        marked = marked[marked >= int(step.table.has_background)]
        columns = [self.train_presence.ids.index(step.seen_classes[position]) for position in marked]
        there = self.train_presence.pixels[np.ix_(rows, np.array(columns))] > 0
        return [
            Exemplar(name, step.index, frozenset(marked[holds].tolist()))
            for name, holds in zip(step.train.names, there, strict=True)
        ]


def _with_background_for_steps(dataset: SegmentationDataset, options: ScenarioOptions) -> SegmentationDataset:
    """The dataset; in steps by class, with an unscored background if it has none and allows one."""
    if options.by == "domain" or options.split == "offline" or dataset.classes.has_background or not dataset.adds_background:
        return dataset
    extended = copy.copy(dataset)
    extended.classes = dataset.classes.with_unscored_background()
    return extended


def class_groups(split: str, order: tuple[int, ...], background: bool = True) -> tuple[int, ...]:
    """The step that adds each class of `order`: (classes,), with 0 for background and the classes of step 0.

    Args:
        background: whether `order` starts with background.

    Example:
        >>> class_groups("2-1", (0, 1, 2, 3, 4))
        (0, 0, 0, 1, 2)
    """
    widths = parse_split(split, len(order) - background)
    return (0,) * background + tuple(step for step, width in enumerate(widths) for _ in range(width))

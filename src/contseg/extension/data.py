"""What a labelled folder adds to a model: its new classes, the images to learn and to measure, and the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Literal

import numpy as np

from contseg.data.classes import IGNORE, ClassTable, Colour, voc_palette
from contseg.data.dataset import SUBSETS, SegmentationDataset
from contseg.data.datasets.labelled import Unlabelled
from contseg.data.datasets.relabelled import Relabelled
from contseg.data.matching import ClassMatch, match_classes, plain_name
from contseg.data.presence import Presence, Progress, build_presence
from contseg.errors import ContsegError, counted, did_you_mean
from contseg.scenarios.batch import Samples
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.step import Step

FEWEST = 3
"""Held-out images below which a measurement is rough."""


@dataclass(frozen=True)
class ExtensionData:
    """The images of a folder as data of one step of a model.

    Attributes:
        dataset: the images; masks have the ids of `table`. Pixels without a label have the id `unlabelled_id`.
        old: the model's classes, in their order; the first outputs.
        new: names of the new classes, in the order of their outputs.
        known: names of classes of the model that the folder labels too.
        train, held_out: names of the images to learn from and to measure on.
        unannotated: names of images without any label, which are in neither part.
        images: by name of a new or known class, the number of training images and of held-out images that contain it.
        unlabelled: what pixels without a label mean: `unknown` or `background`.
        unlabelled_id: the mask value of pixels without a label: the background's, or a void value of `table`.
        notes: findings that a user should know, one line each.
    """

    dataset: SegmentationDataset
    old: ClassTable
    new: tuple[str, ...]
    known: tuple[str, ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    unannotated: tuple[str, ...]
    images: dict[str, tuple[int, int]]
    unlabelled: Unlabelled
    unlabelled_id: int
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        dataset: SegmentationDataset,
        model_classes: ClassTable,
        *,
        wanted: Sequence[str] | None = None,
        unlabelled: Unlabelled = "unknown",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> "ExtensionData":
        """Find what a dataset adds to a model.

        New classes are those that the model lacks by name (see `match_classes`), in the order of the class list. A class
        that the model has is more data for it. About a tenth of the images is held out, unless the files of the dataset
        divide them.

        Args:
            dataset: of `open_labelled`.
            model_classes: the classes of the model, in the order of its outputs.
            wanted: names of the classes to use, new ones in the order of their outputs; default: all.
            unlabelled: the meaning of pixels without a label. `unknown`: they may be background or any class of the
                model; images without any label are left out. `background`: they are background.
            seed: another seed holds out other images.
            progress: called with (done, total) as masks are read.

        Raises:
            ContsegError: no new class, a name in `wanted` that the dataset does not have or label, two classes of the same
                name, or a mask with ids outside the class list.
        """
        if unlabelled not in ("unknown", "background"):
            raise ContsegError(f"unlabelled: {unlabelled!r} is unknown; use 'unknown' or 'background'")
        if unlabelled == "background" and not model_classes.has_background:
            raise ContsegError("unlabelled: the model has no background class; use 'unknown'")
        try:
            match = match_classes(dataset.classes, model_classes)
        except ContsegError as error:
            raise ContsegError(f"{dataset.root}: {error}") from None
        presence = _presence(dataset, progress)
        tests = set(dataset.names("test")) if dataset.is_divided else set()
        held = np.array([name in tests for name in presence.names])
        name_of = dict(zip(dataset.classes.ids, dataset.classes.names, strict=True))
        new, known = _chosen(dataset, match, presence, held, wanted)
        coding = _Coding.of(dataset.classes, model_classes, match, new, known, unlabelled)

        has = presence.pixels[:, [presence.ids.index(number) for number in (*new, *known)]] > 0
        used = has.any(axis=1) | (unlabelled == "background")
        names = np.array(presence.names, dtype=object)
        if not dataset.is_divided:
            held[used] = hold_out(names[used].tolist(), has[used], seed)
        train, held_out, left = names[used & ~held], names[used & held], names[~used]
        new_names = coding.table.names[len(model_classes) :]
        own = dict(zip(model_classes.ids, model_classes.names, strict=True))
        known_names = tuple(own[match.known[number]] for number in known)
        counts = zip(has[used & ~held].sum(axis=0).tolist(), has[used & held].sum(axis=0).tolist(), strict=True)
        images = dict(zip((*new_names, *known_names), counts, strict=True))

        notes = [*dataset.notes, *match.notes]
        if wanted is None and (absent := [name_of[number] for number in match.new if number not in new]):
            notes.append(f"no training image contains {', '.join(absent)}: not learned")
        if known:
            notes.append(f"{', '.join(known_names)}: already in the model; the labels are more data for it")
        if unlabelled == "unknown" and dataset.classes.background == "annotated" and model_classes.has_background:
            notes.append(
                f"pixels of '{dataset.classes.names[0]}' count as unlabelled, as they may belong to a class of the model;"
                " set --unlabelled background if they never do"
            )
        if len(left):
            notes.append(f"{counted(len(left), 'image')} without a label: not used, such as '{left[0]}'")
        if unmeasured := [name for name in new_names if not images[name][1]]:
            notes.append(f"no held-out image contains {', '.join(unmeasured)}: not measured; label it in two images or more")
        if len(held_out) < FEWEST:
            notes.append(f"{counted(len(held_out), 'held-out image')}: a rough measurement; label 30 images or more")
        return cls(
            dataset=Relabelled(dataset, coding.table, coding.ids),
            old=model_classes,
            new=new_names,
            known=known_names,
            train=tuple(dict.fromkeys(train)),
            held_out=tuple(dict.fromkeys(held_out)),
            unannotated=tuple(left),
            images=images,
            unlabelled=unlabelled,
            unlabelled_id=coding.unlabelled,
            notes=tuple(notes),
        )

    @property
    def table(self) -> ClassTable:
        """The classes of the extended model, in the order of its outputs."""
        return replace(self.dataset.classes, void=self.old.void)

    def step(
        self, policy: LabelPolicy | None = None, *, unlabelled_as: Literal["ignored", "background"] = "ignored"
    ) -> Step:
        """The data as step 1 after the model.

        Held-out images are in `val` and in `test`. In `val`, pixels without a label have the label `seen_count`, "none of
        the annotated classes", so that a new class predicted there is an error; in `test` they are ignored.

        Args:
            unlabelled_as: the training label of unlabelled pixels if they are unknown. `ignored`: 255. `background`: the
                background's, as methods expect that model the background shift; without effect if the model has no
                background.
        """
        table = self.table
        truth = self.old.ids if self.unlabelled == "background" else self._known_ids
        step = Step.of(
            table,
            len(self.old),
            dataset=self.dataset,
            train=self.train,
            test=self.held_out,
            policy=policy,
            annotated=truth,
        )
        lookup = step.test.lookup.copy()
        marked = np.isin(table.ids, (*truth, *step.new_classes))
        train = step.train
        lookup[self.unlabelled_id] = 0 if self.unlabelled == "background" else min(len(table), IGNORE)
        if self.unlabelled == "unknown" and unlabelled_as == "ignored":
            own = train.lookup.copy()
            own[self.unlabelled_id] = IGNORE
            train = replace(train, lookup=own)
        val = Samples(self.dataset, self.held_out, lookup, marked)
        return replace(step, train=train, val=val, test=replace(step.test, annotated=marked))

    @property
    def _known_ids(self) -> tuple[int, ...]:
        return tuple(self.old.ids[self.old.index_of(name)] for name in self.known)


def hold_out(names: Sequence[str], has: np.ndarray, seed: int = 0) -> np.ndarray:
    """Choose the images to measure on: (I,) bool, about a tenth, and at least 3 of 6 images or more.

    Images are ranked by the hash of seed and name. Of every class in two images or more, at least one image is held out
    where that leaves one of every class to learn from.

    Args:
        names: I names of images.
        has: (I, K) bool, the classes of each image.

    Example:
        >>> has = np.ones((20, 1), dtype=bool)
        >>> hold_out([f"{number:02d}" for number in range(20)], has).sum(), hold_out(["a", "b"], has[:2]).sum()
        (np.int64(3), np.int64(1))
    """
    held = np.zeros(len(names), dtype=bool)
    rank = np.argsort([sha1(f"{seed} {name}".encode()).hexdigest() for name in names])
    wanted = min(max(FEWEST, round(len(names) / 10)), len(names) // 2)

    def take(image: int) -> bool:
        """Hold out an image, unless no other training image has one of its classes."""
        left = has[~held].sum(axis=0) - has[image]
        held[image] = not held[image] and bool((left[has[image]] > 0).all())
        return bool(held[image])

    for column in np.argsort(has.sum(axis=0), kind="stable"):  # rare classes have the least choice
        if not (has[:, column] & held).any():
            next(filter(take, rank[has[rank, column]]), None)
    for image in rank:
        if held.sum() < wanted and not held[image]:
            take(image)
    return held


def _presence(dataset: SegmentationDataset, progress: Progress | None) -> Presence:
    """The pixels of every class in every image, training images first."""
    parts = [build_presence(dataset, subset, progress=progress) for subset in SUBSETS if dataset.names(subset)]
    if not parts:
        raise ContsegError(f"{dataset.root}: no labelled images")
    return parts[0] if len(parts) == 1 else parts[0].joined(parts[1])


def _chosen(
    dataset: SegmentationDataset,
    match: ClassMatch,
    presence: Presence,
    held: np.ndarray,
    wanted: Sequence[str] | None,
) -> tuple[list[int], list[int]]:
    """The dataset's ids of the new and of the known classes to use.

    Args:
        held: (I,) bool, the images that the dataset's files hold out.

    Raises:
        ContsegError: the dataset lists no class of a wanted name, no training image contains it, or no class is new.
    """
    name_of = dict(zip(dataset.classes.ids, dataset.classes.names, strict=True))
    chosen = [*match.new, *match.known]
    learnable = set(np.array(presence.ids)[presence.pixels[~held].any(axis=0)].tolist())
    if wanted is not None:
        ids = {plain_name(name_of[number]): number for number in chosen}
        for name in wanted:
            if plain_name(name) not in ids:
                known = did_you_mean(name, [name_of[number] for number in chosen])
                raise ContsegError(f"{dataset.root}: no class '{name}'; {known}")
            if ids[plain_name(name)] not in learnable:
                raise ContsegError(
                    f"{dataset.root}: no training image contains '{name}'; label it, or remove it from the wanted classes"
                )
        chosen = list(dict.fromkeys(ids[plain_name(name)] for name in wanted))
    chosen = [number for number in chosen if number in learnable]
    new = [number for number in chosen if number not in match.known]
    if not new:
        there = ", ".join(name_of[number] for number in chosen)
        found = f"only {there}, which the model already has" if there else "no class"
        if not there and any((dataset.read_mask(name) == IGNORE).any() for name in presence.names[:10]):
            found += f", but {IGNORE}, which always means 'ignore': write the id of the class instead"
        raise ContsegError(f"{dataset.root}: no new class: the labels of its training images contain {found}")
    return new, [number for number in chosen if number in match.known]


@dataclass(frozen=True)
class _Coding:
    """The ids of the extended table.

    Attributes:
        table: the extended classes.
        ids: their id by id in the dataset.
        unlabelled: the id of pixels without a label.
    """

    table: ClassTable
    ids: dict[int, int]
    unlabelled: int

    @classmethod
    def of(
        cls,
        data: ClassTable,
        model: ClassTable,
        match: ClassMatch,
        new: Sequence[int],
        known: Sequence[int],
        unlabelled: Unlabelled,
    ) -> "_Coding":
        """The coding for some new and known classes."""
        rows = [data.ids.index(number) for number in new]
        names, colours = [data.names[row].strip() for row in rows], [data.colours[row] for row in rows]
        table, zero = extended_table(model, names, colours), 0
        if unlabelled == "unknown":
            zero = _free_id((*table.ids, *table.void))
            table = replace(table, void=(*table.void, zero))
        codes = dict.fromkeys((*data.ids, *data.void), zero)
        if unlabelled == "background":  # a class that is not wanted is no background
            codes |= dict.fromkeys((*match.new, *match.known), IGNORE)
        codes |= {number: match.known[number] for number in known}
        return cls(table, codes | dict(zip(new, table.ids[len(model) :], strict=True)), zero)


def extended_table(model: ClassTable, names: Sequence[str], colours: Sequence[Colour]) -> ClassTable:
    """The table of a model with new classes, which get the next free ids, and colours that are not in use.

    Args:
        colours: one per name, replaced where it is in use.

    Example:
        >>> extended_table(ClassTable.of(["background", "cat"]), ["dog"], [(128, 0, 0)]).colours[2]
        (0, 128, 0)
    """
    own, ids = list(model.colours), list(model.ids)
    palette = voc_palette(2 * (len(model) + len(names)))
    for colour in colours:
        ids.append(_free_id((*ids, *model.void)))
        own.append(colour if colour not in own else next(one for one in palette if one not in own))
    return ClassTable((*model.names, *names), tuple(ids), tuple(own), model.background, model.void)


def _free_id(ids: Sequence[int]) -> int:
    number = max(ids) + 1
    return number + (number == IGNORE)

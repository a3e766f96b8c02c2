"""What a labelled folder adds to a model: its new classes, the images to learn and to measure, and the step."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from pathlib import Path
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
        where = dataset.root
        try:
            match = match_classes(dataset.classes, model_classes)
        except ContsegError as error:
            raise ContsegError(f"{where}: {error}") from None
        presence = _presence(dataset, progress)
        tests = set(dataset.names("test")) if dataset.is_divided else set()
        held = np.array([name in tests for name in presence.names])
        name_of = dict(zip(dataset.classes.ids, dataset.classes.names, strict=True))
        there = {number for number, pixels in zip(presence.ids, presence.pixels[~held].T, strict=True) if pixels.any()}
        chosen = (*match.new, *match.known) if wanted is None else _wanted(where, wanted, name_of, there, match)
        new = [number for number in chosen if number in match.new and number in there]
        known = [number for number in chosen if number in match.known and number in there]
        if not new:
            labelled = ", ".join(name_of[number] for number in known)
            only = f"only {labelled}, which the model already has" if known else "no class"
            raise ContsegError(f"{where}: no new class: its training images contain {only}; label the new class")
        colours = dict(zip(dataset.classes.ids, dataset.classes.colours, strict=True))
        table = _extended(model_classes, [name_of[number] for number in new], [colours[number] for number in new])
        unlabelled_id = 0
        if unlabelled == "unknown":
            unlabelled_id = _free_id((*table.ids, *table.void))
            table = replace(table, void=(*table.void, unlabelled_id))
        elsewhere = dict.fromkeys((*dataset.classes.ids, *dataset.classes.void), unlabelled_id)
        if unlabelled == "background":  # a class that is not wanted is no background
            elsewhere |= dict.fromkeys((*match.new, *match.known), IGNORE)
        new_ids = dict(zip(new, table.ids[len(model_classes) :], strict=True))
        ids = {**elsewhere, **{number: match.known[number] for number in known}, **new_ids}

        has = presence.pixels[:, [presence.ids.index(number) for number in (*new, *known)]] > 0
        used = has.any(axis=1) | (unlabelled == "background")
        names = np.array(presence.names, dtype=object)
        if not dataset.is_divided:
            held[used] = hold_out(names[used].tolist(), has[used], seed)
        train, held_out, left = names[used & ~held], names[used & held], names[~used]
        known_names = [model_classes.names[model_classes.ids.index(match.known[number])] for number in known]
        counts = zip(has[used & ~held].sum(axis=0).tolist(), has[used & held].sum(axis=0).tolist(), strict=True)
        images = dict(zip([*(name_of[number] for number in new), *known_names], counts, strict=True))
        notes = [*dataset.notes, *match.notes]
        if absent := [name_of[number] for number in match.new if number in chosen and number not in there]:
            notes.append(f"no training image contains {', '.join(absent)}: not learned")
        if known:
            notes.append(f"{', '.join(known_names)}: already in the model; the labels are more data for it")
        if unlabelled == "unknown" and dataset.classes.background == "annotated" and model_classes.has_background:
            notes.append(
                f"pixels of '{dataset.classes.names[0]}' count as unlabelled, as they may belong to a class of the model;"
                " unlabelled=background trains on them as background"
            )
        if len(left):
            notes.append(f"{counted(len(left), 'image')} without a label: not used, such as '{left[0]}'")
        notes += _rough(images, len(held_out), [name_of[number] for number in new])
        return cls(
            dataset=Relabelled(dataset, table, ids),
            old=model_classes,
            new=tuple(name_of[number] for number in new),
            known=tuple(known_names),
            train=tuple(train),
            held_out=tuple(held_out),
            unannotated=tuple(left),
            images=images,
            unlabelled=unlabelled,
            unlabelled_id=unlabelled_id,
            notes=tuple(notes),
        )

    @property
    def table(self) -> ClassTable:
        """The classes of the extended model, in the order of its outputs."""
        return self.dataset.classes

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
        if self.unlabelled == "unknown":
            lookup[self.unlabelled_id] = min(len(table), IGNORE)
            if unlabelled_as == "ignored":
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


def _wanted(
    where: Path, wanted: Sequence[str], name_of: Mapping[int, str], there: Container[int], match: ClassMatch
) -> tuple[int, ...]:
    """The dataset's ids of the wanted classes, in their order.

    Raises:
        ContsegError: the dataset lists no class of a name, or no training image contains it.
    """
    ids = {plain_name(name_of[number]): number for number in (*match.new, *match.known)}
    for name in wanted:
        if plain_name(name) not in ids:
            listed = [name_of[number] for number in ids.values()]
            raise ContsegError(f"{where}: no class '{name}'; {did_you_mean(name, listed)}")
        if ids[plain_name(name)] not in there:
            raise ContsegError(
                f"{where}: no training image contains '{name}'; label it, or leave it out of the wanted classes"
            )
    return tuple(dict.fromkeys(ids[plain_name(name)] for name in wanted))


def _extended(model: ClassTable, names: Sequence[str], colours: Sequence[Colour]) -> ClassTable:
    """The model's table with more classes: the next free ids, and colours that are not in use."""
    ids = list(model.ids)
    for _ in names:
        ids.append(_free_id(ids))
    own = list(model.colours)
    palette = [colour for colour in voc_palette() if colour not in own]
    for colour in colours:
        own.append(colour if colour not in own else next(one for one in palette if one not in own))
    return ClassTable((*model.names, *names), tuple(ids), tuple(own), model.background, model.void)


def _free_id(ids: Sequence[int]) -> int:
    number = max(ids) + 1
    return number + (number == IGNORE)


def _rough(images: dict[str, tuple[int, int]], held_out: int, new: Sequence[str]) -> list[str]:
    """Notes on too few images."""
    notes = []
    unmeasured = [name for name in new if not images[name][1]]
    if unmeasured:
        notes.append(f"no held-out image contains {', '.join(unmeasured)}: not measured; label it in two images or more")
    if held_out < FEWEST:
        notes.append(f"{counted(held_out, 'held-out image')}: too few for a reliable measurement; label 30 images or more")
    return notes

"""Looking at every file of a dataset before training does: what is wrong with it, and what it holds."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contseg.data.classes import IGNORE
from contseg.data.dataset import SegmentationDataset, SubsetName, unequal
from contseg.data.files import notes, read_image
from contseg.data.presence import Progress
from contseg.data.recoding import told_counts
from contseg.errors import ContsegError

SUBSETS: tuple[SubsetName, ...] = ("train", "test")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        sample: its name; empty if the list of samples itself is wrong.
        file: where it is wrong; empty if the text tells.
        text: what is wrong.
    """

    subset: SubsetName
    sample: str
    file: str
    text: str


@dataclass(frozen=True)
class SubsetStatistics:
    """What the readable masks of a subset hold, of K classes.

    Args:
        samples: how many there are, readable or not.
        images: (K,) int64, masks with at least one pixel of a class.
        pixels: (K,) int64, pixels of a class.
        ignored: pixels that are void or 255.
        notes: how many images are read otherwise than they are stored, by `contseg.data.files.notes`.
    """

    subset: SubsetName
    samples: int
    images: np.ndarray
    pixels: np.ndarray
    ignored: int
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Checked:
    problems: list[Problem]
    pixels: np.ndarray
    ignored: int
    notes: list[str]


def check_dataset(
    dataset: SegmentationDataset, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[Problem], list[SubsetStatistics]]:
    """Decode every image and mask of both subsets to the end; a bad one stops nothing.

    Args:
        workers: threads; default: all cores (the decoders release the interpreter lock).
        progress: called with (done, total) as samples are read.

    Returns:
        The problems in list order, and the statistics of each subset.
    """
    problems: list[Problem] = []
    names: dict[SubsetName, list[str]] = {}
    for subset in SUBSETS:
        try:
            names[subset] = dataset.names(subset)
        except ContsegError as error:
            names[subset] = []
            problems.append(Problem(subset, "", "", str(error)))
        else:
            if not names[subset]:
                problems.append(Problem(subset, "", str(dataset.root), "this subset is empty"))

    total, done = sum(map(len, names.values())), 0
    statistics = []
    known = dataset.classes.known_values()
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for subset in SUBSETS:
            images, pixels = (np.zeros(len(dataset.classes), dtype=np.int64) for _ in range(2))
            ignored = 0
            told: Counter[str] = Counter()
            checks = (pool.submit(check_sample, dataset, subset, name, known) for name in names[subset])
            for future in list(checks):
                checked = future.result()
                problems += checked.problems
                images += checked.pixels > 0
                pixels += checked.pixels
                ignored += checked.ignored
                told.update(checked.notes)
                done += 1
                if progress:
                    progress(done, total)
            statistics.append(SubsetStatistics(subset, len(names[subset]), images, pixels, ignored, dict(told)))
    return problems, statistics


def check_sample(dataset: SegmentationDataset, subset: SubsetName, name: str, known: np.ndarray) -> _Checked:
    """Everything that is wrong with one sample, and the pixels of its classes.

    Args:
        known: of `ClassTable.known_values`.
    """
    problems: list[Problem] = []

    def found(file: Path, error: Exception | str) -> None:
        problem = Problem(subset, name, str(file), str(error).removeprefix(f"{file}: "))
        if problem not in problems:  # a mask may need its image's size, and tell it again
            problems.append(problem)

    image = mask = None
    told: list[str] = []
    try:
        image = read_image(dataset.image_path(name), dataset.reading)
        told = notes(dataset.image_path(name), dataset.reading)
    except ContsegError as error:
        found(dataset.image_path(name), error)
    try:
        mask = dataset.read_mask(name)
    except ContsegError as error:
        missing = str(error).startswith(f"{dataset.image_path(name)}: ")
        found(dataset.image_path(name) if missing else dataset.mask_path(name), error)
    ids = np.array(dataset.classes.ids)
    if mask is None:
        return _Checked(problems, np.zeros(len(ids), dtype=np.int64), 0, told)
    if image is not None and image.shape[:2] != mask.shape:
        found(dataset.mask_path(name), unequal(mask, image.shape, dataset.image_path(name)))
    counts = np.bincount(mask.ravel(), minlength=max(ids.max(), IGNORE) + 1)
    strange = np.flatnonzero((counts > 0) & ~known[: len(counts)])
    if len(strange):
        found(dataset.mask_path(name), f"ids outside the class table: {told_counts(strange, counts[strange])}")
    pixels = counts[ids].astype(np.int64)
    return _Checked(problems, pixels, int(counts.sum() - pixels.sum() - counts[strange].sum()), told)

"""Check every file of a dataset before training: problems, and statistics of the masks."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contseg.data.classes import IGNORE
from contseg.data.dataset import SUBSETS, SegmentationDataset, SubsetName, repeated_names, unequal
from contseg.data.files import notes, read_image
from contseg.data.presence import Progress
from contseg.data.recoding import describe_counts
from contseg.errors import ContsegError, counted


@dataclass(frozen=True)
class Problem:
    """One problem of a dataset.

    Args:
        sample: name of the sample; empty if the list of samples itself is wrong.
        file: the file with the problem; empty if the text names it.
        text: the problem.
    """

    subset: SubsetName
    sample: str
    file: str
    text: str


@dataclass(frozen=True)
class SubsetStatistics:
    """Statistics of the readable masks of a subset, over K classes.

    Args:
        samples: number of different samples, readable or not.
        images: (K,) int64, masks with at least one pixel of a class.
        pixels: (K,) int64, pixels of a class.
        ignored: pixels that are void or 255.
        notes: number of images that are rotated or rescaled when read, by the text of `contseg.data.files.notes`.
        marked: masks with at least one pixel of 255.
        highest: largest value of the masks' integer type, 255 or 65535; 0 if no mask could be read.
        repeated: samples that the list names more than once.
        named: sample names by the digest of their image's pixels.
    """

    subset: SubsetName
    samples: int
    images: np.ndarray
    pixels: np.ndarray
    ignored: int
    notes: dict[str, int] = field(default_factory=dict)
    marked: int = 0
    highest: int = 0
    repeated: tuple[str, ...] = ()
    named: Mapping[bytes, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Checked:
    problems: list[Problem]
    pixels: np.ndarray
    ignored: int
    notes: list[str] = field(default_factory=list)
    marked: bool = False
    highest: int = 0
    digest: bytes = b""


def check_dataset(
    dataset: SegmentationDataset, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[Problem], list[SubsetStatistics]]:
    """Decode every image and mask of both subsets completely; the check continues after a bad file.

    Args:
        workers: threads; default: all cores (the decoders release the interpreter lock).
        progress: called with (done, total) after each sample.

    Returns:
        The problems in list order, and the statistics of each subset.
    """
    problems: list[Problem] = []
    names: dict[SubsetName, list[str]] = {}
    repeated: dict[SubsetName, list[str]] = {}
    for subset in SUBSETS:
        try:
            names[subset] = dataset.names(subset)
        except ContsegError as error:
            names[subset] = []
            problems.append(Problem(subset, "", "", str(error)))
        else:
            if not names[subset]:
                problems.append(Problem(subset, "", str(dataset.root), "this subset is empty"))
        repeated[subset] = repeated_names(names[subset])
        names[subset] = list(dict.fromkeys(names[subset]))

    total, done = sum(map(len, names.values())), 0
    statistics = []
    known = dataset.classes.known_values()
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for subset in SUBSETS:
            images, pixels = (np.zeros(len(dataset.classes), dtype=np.int64) for _ in range(2))
            ignored = marked = highest = 0
            read_otherwise: Counter[str] = Counter()
            named: dict[bytes, str] = {}
            checks = (pool.submit(check_sample, dataset, subset, name, known) for name in names[subset])
            for name, future in zip(names[subset], list(checks), strict=True):
                checked = future.result()
                problems += checked.problems
                images += checked.pixels > 0
                pixels += checked.pixels
                ignored, marked = ignored + checked.ignored, marked + checked.marked
                highest = max(highest, checked.highest)
                read_otherwise.update(checked.notes)
                if checked.digest:
                    named.setdefault(checked.digest, name)
                done += 1
                if progress:
                    progress(done, total)
            twice, samples = tuple(repeated[subset]), len(names[subset])
            statistics.append(
                SubsetStatistics(
                    subset, samples, images, pixels, ignored, dict(read_otherwise), marked, highest, twice, named
                )
            )
    for name in sorted(set(names["train"]) & set(names["test"])):
        text = "is in the training and in the test list, so test metrics are too high; remove it from one"
        problems.append(Problem("test", name, str(dataset.image_path(name)), text))
    return problems, statistics


def remarks(dataset: SegmentationDataset, statistics: Sequence[SubsetStatistics]) -> list[str]:
    """Remarks on a dataset that are not problems of a file, one line each.

    Args:
        statistics: of `check_dataset`, train first.

    Example:
        >>> from contseg.data.datasets.digits import Digits
        >>> digits = Digits(train=5, test=3, size=32)
        >>> [text.partition(":")[0] for text in remarks(digits, check_dataset(digits)[1])][-1]
        'no test mask contains zero, four, five, six'
    """
    train, test = statistics
    table = dataset.classes
    found = list(dataset.notes)
    read_otherwise = sum((Counter(one.notes) for one in statistics), Counter())
    found += [f"{counted(count, 'image')}: {how}" for how, count in read_otherwise.items()]
    for one in statistics:
        if one.repeated:
            first = one.repeated[0]
            found.append(
                f"the {one.subset} list names {counted(len(one.repeated), 'image')} more than once, such as '{first}':"
                " each counts once"
            )
    for path, images in _linked_folders(dataset).items():
        found.append(
            f"{path.relative_to(dataset.root)} is a link to {os.path.realpath(path)}: {images} images below it are used"
        )
    absent = {one.subset: _absent(dataset, one) for one in statistics}
    nowhere = [name for name in absent["train"] if name in absent["test"]]
    for names, what in (
        (nowhere, "no mask contains {}: cannot be learned from these masks"),
        (
            [name for name in absent["train"] if name not in nowhere],
            "no training mask contains {}: cannot be learned from these masks",
        ),
        ([name for name in absent["test"] if name not in nowhere], "no test mask contains {}: left out of every mean"),
    ):
        if names:
            found.append(what.format(_listed(names)))
    marked, masks = train.marked + test.marked, train.samples + test.samples
    if nowhere and marked:
        found.append(
            f"{IGNORE} is in {marked} of {masks} masks and always means 'ignore': if it marks {_listed(nowhere)}, write"
            " the id of that class instead"
        )
    highest = max(train.highest, test.highest)
    beyond = [name for name, number in zip(table.names, table.ids, strict=True) if 0 < highest < number]
    if beyond:
        found.append(f"the masks have 8 bits, so ids end at {highest}, below that of {_listed(beyond)}: write 16-bit PNGs")
    if len(table) > IGNORE:
        found.append(f"{len(table)} classes: training is limited to {IGNORE} outputs")
    same = [(train.named[digest], test.named[digest]) for digest in train.named if digest in test.named]
    same = [(one, other) for one, other in same if one != other]
    if same:
        found.append(
            f"{len(same)} test images equal a training image pixel by pixel, such as '{same[0][1]}' and '{same[0][0]}':"
            " test metrics are too high"
        )
    return found


def _linked_folders(dataset: SegmentationDataset) -> dict[Path, int]:
    """Linked folders in the dataset's folder, with the number of images below each."""
    samples: Counter[Path] = Counter()
    for subset in SUBSETS:
        with suppress(ContsegError):  # reported as a problem
            samples.update(dataset.image_path(name).parent for name in dict.fromkeys(dataset.names(subset)))
    linked: Counter[Path] = Counter()
    for folder, images in samples.items():
        for path in (folder, *folder.parents):
            if dataset.root in path.parents and path.is_symlink():
                linked[path] += images
    return dict(sorted(linked.items()))


def _absent(dataset: SegmentationDataset, one: SubsetStatistics) -> list[str]:
    """The scored classes without a pixel in a subset; empty if the subset has no readable mask."""
    table = dataset.classes
    wanted = table.foreground if table.background == "unscored" else table.ids
    rows = zip(table.names, table.ids, one.images, strict=True)
    return [name for name, number, images in rows if not images and number in wanted] if one.highest else []


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_sample(dataset: SegmentationDataset, subset: SubsetName, name: str, known: np.ndarray) -> _Checked:
    """All problems of one sample, and the pixels of its classes.

    Args:
        known: see `ClassTable.known_values`.
    """
    problems: list[Problem] = []

    def found(file: Path, error: Exception | str) -> None:
        problem = Problem(subset, name, str(file), str(error).removeprefix(f"{file}: "))
        if problem not in problems:  # reading a mask may read its image's size and report the same problem again
            problems.append(problem)

    image = mask = None
    remarks: list[str] = []
    try:
        image = read_image(dataset.image_path(name), dataset.reading)
        remarks = notes(dataset.image_path(name), dataset.reading)
    except ContsegError as error:
        found(dataset.image_path(name), error)
    try:
        mask = dataset.read_mask(name)
    except ContsegError as error:
        missing = str(error).startswith(f"{dataset.image_path(name)}: ")
        found(dataset.image_path(name) if missing else dataset.mask_path(name), error)
    ids = np.array(dataset.classes.ids)
    digest = (
        b"" if image is None else hashlib.blake2b(image.tobytes(), digest_size=16, key=str(image.shape).encode()).digest()
    )
    if mask is None:
        return _Checked(problems, np.zeros(len(ids), dtype=np.int64), 0, remarks, digest=digest)
    if image is not None and image.shape[:2] != mask.shape:
        found(dataset.mask_path(name), unequal(mask, image.shape, dataset.image_path(name)))
    for flaw in dataset.flaws(name):
        found(dataset.mask_path(name), flaw)
    counts = np.bincount(mask.ravel(), minlength=max(ids.max(), IGNORE) + 1)
    strange = np.flatnonzero((counts > 0) & ~known[: len(counts)])
    if len(strange):
        found(dataset.mask_path(name), f"ids outside the class table: {describe_counts(strange, counts[strange])}")
    pixels = counts[ids].astype(np.int64)
    ignored = int(counts.sum() - pixels.sum() - counts[strange].sum())
    return _Checked(problems, pixels, ignored, remarks, bool(counts[IGNORE]), int(np.iinfo(mask.dtype).max), digest)

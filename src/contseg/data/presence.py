"""Which image holds how many pixels of which class: one table per subset, made once, read by every selection rule."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from contseg.data.cache import cache_folder
from contseg.data.classes import IGNORE
from contseg.data.dataset import SegmentationDataset, SubsetName, size
from contseg.data.files import image_size
from contseg.data.recoding import count_ids, told_counts
from contseg.errors import ContsegError

Progress = Callable[[int, int], None]
LAYOUT_VERSION = "presence-2"
_AT_A_TIME = 32
"""Masks that a thread counts before it takes more work: handing out each alone costs a tenth of decoding it."""


@dataclass(frozen=True)
class Presence:
    """Pixel counts of one subset.

    Args:
        names: the images, in list order, I of them.
        ids: the class ids of the columns, K of them.
        pixels: (I, K) int64, pixels of each class in each image; ignored pixels are not counted.
        fingerprint: of the files behind it; changes when one of them does.

    Example:
        >>> table = Presence(("a", "b"), (0, 1, 2), np.array([[5, 4, 0], [9, 0, 0]]))
        >>> table.contains([1, 2])
        array([ True, False])
        >>> table.pixels_of([1, 2], np.array([0, 1]))
        array([4, 0])
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    pixels: np.ndarray
    fingerprint: str = ""

    def contains(self, ids) -> np.ndarray:
        """Boolean (I,): the image holds at least one pixel of one of these class ids."""
        columns = np.isin(self.ids, list(ids))
        return np.any(self.pixels[:, columns] > 0, axis=1)

    def pixels_of(self, ids, rows: np.ndarray) -> np.ndarray:
        """Total pixels of each of these class ids in the images of these rows, in the order of `ids`."""
        columns = [self.ids.index(number) for number in ids]
        return self.pixels[rows][:, columns].sum(axis=0)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def rows_of(self, names: Sequence[str]) -> np.ndarray:
        """The row of each of these images."""
        return np.array([self._row_of[name] for name in names], dtype=int)

    def joined(self, other: "Presence") -> "Presence":
        """The images of both tables as one list."""
        fingerprint = hashlib.sha256(f"{self.fingerprint} {other.fingerprint}".encode()).hexdigest()[:32]
        return Presence(self.names + other.names, self.ids, np.concatenate([self.pixels, other.pixels]), fingerprint)


def build_presence(
    dataset: SegmentationDataset,
    subset: SubsetName,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cached: bool = True,
) -> Presence:
    """The presence table of a subset, from the cache if none of its files changed.

    Every mask is read once, in parallel; the image's header is compared with the mask's size on the way.

    Args:
        workers: threads; default: all cores (the decoders release the interpreter lock).
        progress: called with (done, total) as masks are read.
        cached: False reads everything again.

    Raises:
        ContsegError: a file is missing or unreadable, sizes differ, or a mask holds ids outside the class table.
    """
    names = dataset.names(subset)
    if not names:
        raise ContsegError(f"{dataset.root}: the {subset} subset of {dataset.name} is empty")
    fingerprint = _fingerprint(dataset, names)
    place = cache_folder("presence") / f"{fingerprint}.npz"
    if cached and place.is_file():
        try:
            with np.load(place) as saved:
                return Presence(tuple(names), dataset.classes.ids, saved["pixels"], fingerprint)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            place.unlink(missing_ok=True)  # a half-written file of a killed process

    counting = _Counting(dataset)
    pixels = np.empty((len(names), len(dataset.classes)), dtype=np.int64)

    def count(rows: range) -> range:
        for row in rows:
            pixels[row] = counting(names[row])
        return rows

    parts = [range(start, min(start + _AT_A_TIME, len(names))) for start in range(0, len(names), _AT_A_TIME)]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for rows in pool.map(count, parts):
            if progress:
                for row in rows:
                    progress(row + 1, len(names))
    if cached:
        partial = place.with_name(f"{place.stem}.{os.getpid()}.partial.npz")
        np.savez_compressed(partial, pixels=pixels)
        partial.replace(place)
    return Presence(tuple(names), dataset.classes.ids, pixels, fingerprint)


class _Counting:
    """Counts the pixels of each class in one mask after another; what does not depend on the mask is made once."""

    def __init__(self, dataset: SegmentationDataset):
        self._dataset = dataset
        self._ids = np.array(dataset.classes.ids)
        self._highest = int(self._ids.max())
        self._strange = ~dataset.classes.known_values()

    def __call__(self, name: str) -> np.ndarray:
        """(K,) int64, in the order of the class table.

        Raises:
            ContsegError: a file is missing or unreadable, sizes differ, or the mask holds ids outside the class table.
        """
        mask = self._dataset.read_mask(name)
        there = image_size(self._dataset.image_path(name))
        if mask.shape != there:
            path, (height, width) = self._dataset.mask_path(name), there
            raise ContsegError(f"{path}: mask is {size(mask)} but its image is {width}x{height}; they must be equal")
        counts = count_ids(mask)
        if counts[self._strange[: len(counts)]].any():
            strange = np.flatnonzero((counts > 0) & self._strange[: len(counts)])
            raise ContsegError(
                f"{self._dataset.mask_path(name)}: ids outside the class table: {told_counts(strange, counts[strange])};"
                f" add them to the classes or write {IGNORE} for ignore"
            )
        if self._highest < len(counts):
            return counts[self._ids]
        return np.where(self._ids < len(counts), counts[np.minimum(self._ids, len(counts) - 1)], 0)


def _fingerprint(dataset: SegmentationDataset, names: list[str]) -> str:
    """Changes when a file of the subset is added, removed, resized or touched, or when the class ids change."""
    table = dataset.classes
    coding = f"{LAYOUT_VERSION} {dataset.name} {dataset.root.resolve()} {table.ids} {table.void}"
    paths = [os.fspath(path(name)) for name in names for path in (dataset.image_path, dataset.mask_path)]
    told = [coding]
    for position, path in enumerate(paths):
        try:
            stat = os.stat(path)
        except OSError:
            kind, name = ("image", "mask")[position % 2], names[position // 2]
            raise ContsegError(f"{path}: {kind} not found; '{name}' is in the list, so both files must be there") from None
        told.append(f"{names[position // 2]} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]

"""Pixels of each class in each image: one table per subset, computed once, used by every selection rule."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from contseg.archives import read_arrays
from contseg.atomic import UnwritableError, atomic_file
from contseg.data.cache import cache_folder
from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, unequal
from contseg.data.files import image_size
from contseg.data.recoding import count_ids, describe_counts
from contseg.digest import sha256
from contseg.errors import ContsegError
from contseg.plugins import foreign_digest

Progress = Callable[[int, int], None]
LAYOUT_VERSION = "presence-4"
DIGEST = 8
"""Bytes of the digest of a mask."""
_AT_A_TIME = 400
"""Masks per work item: dispatching each mask alone costs a tenth of its decoding."""
_WORTH_A_PROCESS = 1000
"""Masks that are counted in about the time it takes to start a process."""


@dataclass(frozen=True)
class Presence:
    """Pixel counts of one subset.

    Args:
        names: the images, in list order, I of them.
        ids: the class ids of the columns, K of them.
        pixels: (I, K) int64, pixels of each class in each image; ignored pixels are not counted.
        fingerprint: digest of the mask and image files' sizes and times; changes when a file changes.
        masks: (I, 8) uint8, a digest of the ids in each mask; () if it was not computed.

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
    masks: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))

    def contains(self, ids) -> np.ndarray:
        """Boolean (I,): the image contains at least one pixel of one of these class ids."""
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
        fingerprint = _digest(f"{self.fingerprint} {other.fingerprint}")
        pixels, masks = (np.concatenate(both) for both in ((self.pixels, other.pixels), (self.masks, other.masks)))
        return Presence(self.names + other.names, self.ids, pixels, fingerprint, masks)


def build_presence(
    dataset: SegmentationDataset,
    subset: SubsetName,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cached: bool = True,
) -> Presence:
    """The presence table of a subset, from the cache if no file changed.

    Every mask is read once, in parallel, and its size is compared with the image's header. An image that is listed several
    times is one row, at its first place, so it is learned, kept and scored once.

    Args:
        workers: processes that read masks (threads would wait for the interpreter a third of the time); default: one per
            core, and 0 (read in this process) for less than a thousand masks.
        progress: called with (done, total) as masks are read.
        cached: False ignores the cache and reads every mask.

    Raises:
        ContsegError: a file is missing or unreadable, sizes differ, or a mask contains ids outside the class table.
    """
    names = list(dict.fromkeys(dataset.names(subset)))  # an image that is listed twice is one image
    if not names:
        raise ContsegError(f"{dataset.root}: the {subset} subset of {dataset.name} is empty")
    if workers is None:
        workers = min(os.cpu_count() or 1, len(names) // _WORTH_A_PROCESS)
    own = torch.Generator()  # the loader draws a seed for its workers; the global generator must not change
    counting = _Counting(dataset, names)
    loader = DataLoader(counting, batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=own)
    known = f"{dataset.name}-{subset}-{_digest(str(dataset.root.resolve()))[:8]}"
    seen_before = cached and any(cache_folder("presence").glob(f"{known}-*.npz"))
    parts = None if seen_before else iter(loader)  # workers start to read while this process checks file times
    fingerprint = _fingerprint(dataset, names)
    place = cache_folder("presence") / f"{known}-{fingerprint}.npz"
    if cached and place.is_file():
        try:
            saved = read_arrays(place)
            return Presence(tuple(names), dataset.classes.ids, saved["pixels"], fingerprint, saved["masks"])
        except (OSError, ValueError, KeyError):
            with suppress(OSError):
                place.unlink(missing_ok=True)  # damaged
    done = 0
    pixels = np.empty((len(names), len(dataset.classes)), dtype=np.int64)
    masks = np.empty((len(names), DIGEST), dtype=np.uint8)
    for part in loader if parts is None else parts:
        if isinstance(part, str):
            raise ContsegError(part)
        here = slice(done, done + len(part[0]))
        pixels[here], masks[here] = part
        for _ in part[0]:
            done += 1
            if progress:
                progress(done, len(names))
    if cached:
        with suppress(UnwritableError), atomic_file(place, shared=True) as partial, partial.open("wb") as file:
            np.savez_compressed(file, pixels=pixels, masks=masks)
    return Presence(tuple(names), dataset.classes.ids, pixels, fingerprint, masks)


def describe_ids(classes: ClassTable, most: int = 8) -> str:
    """The ids of a class table with their names, for a message.

    Example:
        >>> describe_ids(ClassTable.of(["background", "cat", "dog"]), most=2)
        '0 (background), 1 (cat) and 1 more'
    """
    ids = [f"{number} ({name})" for number, name in zip(classes.ids, classes.names, strict=True)]
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _as_it_is(part: Any) -> Any:
    return part


class _Counting(Dataset):
    """Pixel counts and digests of masks in groups of `_AT_A_TIME`. Workers return errors as values, so that the user sees
    one message and no traceback."""

    def __init__(self, dataset: SegmentationDataset, names: Sequence[str]):
        self._dataset, self._names = dataset, names
        self._ids = np.array(dataset.classes.ids)
        self._strange = ~dataset.classes.known_values()

    def __len__(self) -> int:
        return -(-len(self._names) // _AT_A_TIME)

    def __getitem__(self, part: int) -> "tuple[np.ndarray, np.ndarray] | str":
        try:
            return self._counts(self._names[part * _AT_A_TIME : (part + 1) * _AT_A_TIME])
        except ContsegError as error:
            return str(error)

    def _counts(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(len(names), K) int64, in the order of the class table, and (len(names), 8) uint8, a digest of each mask.

        Raises:
            ContsegError: a file is missing or unreadable, sizes differ, or a mask contains ids outside the class table.
        """
        sizes = [image_size(self._dataset.image_path(name)) for name in names]
        counted, digests = [], []
        for name, (height, width) in zip(names, sizes, strict=True):
            mask = self._dataset.read_mask(name)
            if mask.shape != (height, width):
                problem = unequal(mask, (height, width), self._dataset.image_path(name))
                raise ContsegError(f"{self._dataset.mask_path(name)}: {problem}")
            counted.append(count_ids(mask))
            digests.append(mask_digest(mask, len(counted[-1]) > 256))
        counts = np.zeros((len(names), max(self._ids.max() + 1, *map(len, counted))), dtype=np.int64)
        for row, values in zip(counts, counted, strict=True):
            row[: len(values)] = values
        strange = (counts > 0) & self._strange[: counts.shape[1]]
        if strange.any():
            row = int(strange.any(axis=1).argmax())
            strangers = describe_counts(np.flatnonzero(strange[row]), counts[row, strange[row]])
            raise ContsegError(
                f"{self._dataset.mask_path(names[row])}: ids outside the class table: {strangers};"
                f" the class list names {describe_ids(self._dataset.classes)}; add them to it, or write {IGNORE} for ignore"
            )
        return counts[:, self._ids], np.array(digests)


def mask_digest(mask: np.ndarray, wide: bool = False) -> np.ndarray:
    """(8,) uint8: the beginning of the SHA-256 of the size and the ids of a mask, whatever its file and type.

    Args:
        mask: (H, W), any unsigned integers up to 65535.
        wide: whether ids above 255 are possible.

    Example:
        >>> one, other = np.array([[1, 0]], np.uint8), np.array([[0, 1]], np.uint16)
        >>> [bool((mask_digest(one) == mask_digest(mask)).all()) for mask in (other[:, ::-1], other)]
        [True, False]
    """
    ids = np.ascontiguousarray(mask, dtype="<u2" if wide else np.uint8)
    return np.frombuffer(bytes.fromhex(sha256(str(mask.shape), ids.tobytes())[: 2 * DIGEST]), np.uint8)


def _fingerprint(dataset: SegmentationDataset, names: list[str]) -> str:
    """A digest that changes when a file of the subset is added, removed, resized or touched, or the class ids change."""
    table = dataset.classes
    own = foreign_digest(type(dataset))  # the code of a plugin, which decides how masks are read
    coding = f"{LAYOUT_VERSION} {dataset.name} {dataset.root.resolve()} {table.ids} {table.void}" + own
    paths = [os.fspath(path(name)) for name in names for path in (dataset.image_path, dataset.mask_path)]
    facts = [coding]
    for position, path in enumerate(paths):
        try:
            stat = os.stat(path)
        except OSError:
            kind, name = ("image", "mask")[position % 2], names[position // 2]
            if kind == "mask":
                dataset.read_mask(name)  # a dataset may raise a more specific error
            raise ContsegError(f"{path}: {kind} not found; '{name}' is in the list, so both files must be there") from None
        facts.append(f"{names[position // 2]} {stat.st_size} {stat.st_mtime_ns}")
    return _digest("\n".join(facts))


def _digest(text: str) -> str:
    return sha256(text)[:32]

"""The images of each step: boolean expressions over the presence table.

| setting | an image belongs to a step if it contains a class of the step and ... | steps per image |
|---|---|---|
| `overlapped` | (no further condition) | one or several |
| `disjoint` | no later class | one |
| `sequential` | no later class; the labels keep old classes (see `LabelPolicy`) | one |
| `partitioned` | the step has the class with the highest priority (`partition`) | one |
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contseg.archives import read_array
from contseg.data.lists import read_list
from contseg.data.presence import Presence
from contseg.errors import ContsegError, counted
from contseg.scenarios.policy import SettingName


def select(presence: Presence, new: Sequence[int], old: Sequence[int], setting: SettingName, offset: int = 0) -> np.ndarray:
    """Rows of the images of one step, in list order, for the settings that depend on one step only.

    Args:
        new, old: class ids of this step and of earlier ones; background in either is ignored.
        offset: of a dataset's published lists: class c is selected by id c - offset (see `SegmentationDataset`).

    Example:
        >>> table = Presence(("a", "b", "c"), (0, 1, 2), np.array([[5, 4, 0], [9, 3, 1], [9, 0, 1]]))
        >>> select(table, (0, 1), (), "overlapped"), select(table, (0, 1), (), "disjoint")
        (array([0, 1]), array([0]))
    """
    named = set(new) - {0}
    rows = presence.contains({number - offset for number in named})
    if setting != "overlapped":
        later = set(presence.ids) - named - set(old) - {0}
        rows &= ~presence.contains({number - offset for number in later})
    return np.flatnonzero(rows)


def partition(presence: Presence, steps: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Rows of the images of every step; each image with a class belongs to exactly one step.

    The rule by which MiB divided ADE20K: in list order, an image is assigned to the step of its class c with the highest

        120 (1 - given_c / images_c) + sum_k images_k / images_c        (k over the classes in the image)

    where images_c counts the images that contain c and given_c those assigned to c's step so far: rare classes, and classes
    that still lack images, come first. (MiB used an unseeded shuffle of the list; its own division is only available as
    lists, see `read_step_lists`.)

    Args:
        steps: the class ids of each step; background is ignored.

    Example:
        >>> table = Presence(("a", "b", "c"), (0, 1, 2), np.array([[5, 4, 0], [9, 3, 1], [9, 3, 1]]))
        >>> partition(table, [(0, 1), (2,)])
        [array([0, 2]), array([1])]
    """
    there = presence.pixels > 0
    step_of = {number: step for step, numbers in enumerate(steps) for number in numbers if number}
    columns = [column for column, number in enumerate(presence.ids) if number in step_of]
    steps_of = [step_of[presence.ids[column]] for column in columns]
    images = there[:, columns].sum(axis=0).tolist()
    given = [0] * len(columns)
    parts: list[list[int]] = [[] for _ in steps]
    for row, holds in enumerate(there[:, columns]):
        found = np.flatnonzero(holds).tolist()
        if not found:
            continue
        total = sum(images[k] for k in found)
        best = max(found, key=lambda k: 120 * (1 - given[k] / images[k]) + total / images[k])
        parts[steps_of[best]].append(row)
        for k in found:
            if steps_of[k] == steps_of[best]:
                given[k] += 1
    return [np.array(part, dtype=int) for part in parts]


def read_step_lists(folder: Path, steps: int, names: Sequence[str]) -> list[np.ndarray]:
    """Rows of the images of every step, from lists in a folder.

    One file per step: `train-0.txt`, `train-1.txt`, ... with one name per line, or `train-0.npy`, ... with positions in the
    training list (the form in which MiB's lists of ADE20K are published).

    Args:
        steps: number of steps; each needs a file.
        names: the training list.

    Raises:
        ContsegError: a file is missing, cannot be read, or names an absent image.
    """
    position = {name: row for row, name in enumerate(names)}
    parts = []
    for step in range(steps):
        as_text, as_array = folder / f"train-{step}.txt", folder / f"train-{step}.npy"
        if as_text.is_file():
            listed = list(dict.fromkeys(read_list(as_text)))  # an image that is listed twice is one image
            absent = [name for name in listed if name not in position]
            if absent:
                raise ContsegError(
                    f"{as_text}: names {counted(len(absent), 'image')} not in the training list, first '{absent[0]}'"
                )
            parts.append(np.array([position[name] for name in listed]))
        elif as_array.is_file():
            parts.append(_read_positions(as_array, len(names)))
        else:
            raise ContsegError(
                f"{as_text}: list of step {step} not found (nor {as_array.name}); the split has {steps} steps"
            )
    if (folder / f"train-{steps}.txt").is_file() or (folder / f"train-{steps}.npy").is_file():
        raise ContsegError(
            f"{folder}: contains a list for step {steps}, but the split has only {steps} steps; change the split"
        )
    return parts


def _read_positions(path: Path, images: int) -> np.ndarray:
    try:
        rows = read_array(path)
    except (OSError, ValueError) as error:
        raise ContsegError(f"{path}: cannot be read as an array of numbers ({error}); replace the file") from None
    if rows.dtype.kind not in "iu" or rows.ndim != 1 or not len(rows):
        raise ContsegError(f"{path}: contains {rows.dtype} of shape {rows.shape}; expected positions in the training list")
    if rows.min() < 0 or rows.max() >= images:
        raise ContsegError(
            f"{path}: position {rows.max()} is outside the training list of {images} images; another dataset?"
        )
    return np.array(list(dict.fromkeys(rows.tolist())), dtype=int)


def limit(rows: np.ndarray, ratio: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """The first round(ratio * n) of n rows (halves are rounded to even), or as many chosen by `rng`, in list order.

    The data-limited protocol of LAG (TPAMI 2024), applied to later steps.

    Example:
        >>> limit(np.arange(10), 0.25), limit(np.arange(10), 0.25, np.random.default_rng(0))
        (array([0, 1]), array([4, 6]))
    """
    count = round(ratio * len(rows))
    if rng is None:
        return rows[:count]
    return rows[np.sort(rng.permutation(len(rows))[:count])]

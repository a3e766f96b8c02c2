"""How a user's folder divides its images into training and test images: lists, folders, or the hash of their names."""

import hashlib
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from contseg.data.dataset import SUBSETS, SubsetName
from contseg.data.lists import read_list, without_ending
from contseg.errors import ContsegError, counted

_LISTS: dict[SubsetName, tuple[str, ...]] = {"train": ("train.txt",), "test": ("test.txt", "val.txt")}
_FOLDERS: dict[SubsetName, tuple[str, ...]] = {"train": ("train/",), "test": ("test/", "val/", "valid/")}


class Division:
    """The division of a folder's images.

    Lists in the folder come first: train.txt and test.txt (val.txt), or test.txt alone, which leaves all other images for
    training. Then the folders train/ and test/ (val/, valid/) of the names. With neither, about a fifth is for test.

    Args:
        names: names of the images.
        lists: the folder of the lists.
        images: the folder of the images, for messages.
    """

    def __init__(self, names: Collection[str], lists: Path, images: Path):
        self._all, self._lists, self._images = names, lists, images
        self._has_folders = any(name.startswith(_FOLDERS["train"]) for name in names)

    @property
    def is_divided(self) -> bool:
        """Whether there are lists or folders."""
        return self._has_folders or any(self._list(subset).is_file() for subset in SUBSETS)

    def _list(self, subset: SubsetName) -> Path:
        """The existing list of a subset, or the first possible one."""
        choices = [self._lists / name for name in _LISTS[subset]]
        return next((path for path in choices if path.is_file()), choices[0])

    def names(self, subset: SubsetName) -> list[str]:
        """The names of a subset.

        Raises:
            ContsegError: a list names other images, is empty or missing, or there is no folder of test images.
        """
        other: SubsetName = "test" if subset == "train" else "train"
        listed, other_listed = self._list(subset), self._list(other)
        if listed.is_file():
            return self._listed(listed)
        if other_listed.is_file() and subset == "train":
            tests = set(self._listed(other_listed))
            return [name for name in self._all if name not in tests]
        if other_listed.is_file():
            raise ContsegError(f"{listed}: list not found, though {other_listed.name} is there; give both or test.txt alone")
        if self._has_folders:
            names = [name for name in self._all if name.startswith(_FOLDERS[subset])]
            if not names:
                raise ContsegError(f"{self._images}: has train/ but no test/, val/ or valid/; add one, or test.txt")
            return names
        held = held_out(list(self._all))
        return [name for name in self._all if (name in held) == (subset == "test")]

    def _listed(self, path: Path) -> list[str]:
        lines = [unicodedata.normalize("NFC", line) for line in read_list(path)]
        names = [line if line in self._all else without_ending(line) for line in lines]
        absent = [name for name in names if name not in self._all]
        if absent:
            where = self._images.name
            raise ContsegError(f"{path}: names {counted(len(absent), 'image')} not in {where}/, first '{absent[0]}'")
        return names


def held_out(names: Sequence[str]) -> set[str]:
    """The samples to hold out for test if there are no lists: about a fifth, by the hash of the name, so that adding an
    image moves no other. Of two samples or more, at least one is for test and at least one for training.

    Example:
        >>> sorted(held_out([f"{number:03d}" for number in range(8)])), held_out(["alone"])
        (['006'], set())
    """
    ranks = {name: int(hashlib.sha1(name.encode()).hexdigest(), 16) for name in names}
    held = {name for name, rank in ranks.items() if rank % 5 == 0}
    if len(ranks) > 1 and not held:
        held = {min(ranks, key=lambda name: ranks[name])}
    if len(ranks) > 1 and len(held) == len(ranks):
        held -= {min(ranks, key=lambda name: ranks[name])}
    return held

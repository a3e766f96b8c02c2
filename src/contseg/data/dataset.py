"""What a dataset is: a class table, lists of names, and a way to read one sample. It knows nothing of steps."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from contseg.data.classes import ClassTable
from contseg.data.files import orientation, read_image, read_mask
from contseg.data.pixels import AS_STORED, Reading
from contseg.errors import ContsegError

SubsetName = Literal["train", "test"]
SUBSETS: tuple[SubsetName, ...] = ("train", "test")


class SegmentationDataset(ABC):
    """Images with masks of class ids.

    `train` is what steps are cut from; `test` is what every step is measured on (the official validation set where the
    official test set is not public, as in VOC and ADE20K).

    Attributes:
        name: under which `open_dataset` knows it.
        needs_folder: True; False where the dataset makes its own images.
        root: its folder.
        classes: what the ids of `read_mask` mean. Of the class itself: without options, where that is known before a folder
            is opened.
        domains: where the images come from (cities, sensors), in their usual order; empty where that is not told.
        mirror: pairs of class ids that change places when an image is flipped (left and right arm).
        counts_background: False; True where a class that matters plays the background (ISPRS as released), so that splits
            count it and figures include it.
        reading: which bands of an image file become its colours, and which values become 0 and 255.
        adds_background: False; True where an unscored background of id 0 may be added to a table without one, when steps
            bring classes.
        notes: what was found on opening that should be known before training, a line each.
        left_out: rows of its files that are not used, as (file, what and why).
        selection_offset: 0; what published lists of this dataset add to an id before they select images (ISPRS).
    """

    name: str
    needs_folder: ClassVar[bool] = True
    root: Path
    classes: ClassTable
    domains: tuple[str, ...] = ()
    mirror: tuple[tuple[int, int], ...] = ()
    counts_background: bool = False
    reading: Reading = AS_STORED
    selection_offset: int = 0
    adds_background: bool = False
    notes: tuple[str, ...] = ()
    left_out: tuple[tuple[Path, str], ...] = ()

    @abstractmethod
    def names(self, subset: SubsetName) -> list[str]:
        """Names of the samples of a subset, in list order (published selections depend on it)."""

    @abstractmethod
    def image_path(self, name: str) -> Path:
        """The image file of a sample."""

    @abstractmethod
    def mask_path(self, name: str) -> Path:
        """The file that the mask of a sample comes from."""

    @classmethod
    def write_stand_in(cls, root: Path) -> None:
        """Write a few synthetic samples into a new folder, in this dataset's layout, for `contseg dry-run`.

        Every class occurs in several of `train` and in `test`, also without later classes, so that every step has some.

        Raises:
            ContsegError: this dataset cannot be written.
        """
        raise ContsegError(
            f"data.dataset: '{cls.name}' has no synthetic images for a dry run; use another dataset or train on few images"
        )

    def domain_of(self, name: str) -> str:
        """The domain of a sample, one of `domains`; "" where there are none."""
        return ""

    def read_mask(self, name: str) -> np.ndarray:
        """Mask (H, W) of dataset ids, uint8 or uint16. Datasets with another coding than ids in a PNG override this.

        Raises:
            ContsegError: the file is missing or unreadable.
        """
        return read_mask(self.mask_path(name))

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 and mask (H, W) of dataset ids.

        Raises:
            ContsegError: a file is missing or unreadable, or the mask has another size than the image.
        """
        image, mask = read_image(self.image_path(name), self.reading), self.read_mask(name)
        if image.shape[:2] != mask.shape:
            raise ContsegError(f"{self.mask_path(name)}: {unequal(mask, image.shape, self.image_path(name))}")
        return image, mask


def size(array: np.ndarray) -> str:
    """Width x height, as people write it.

    Example:
        >>> size(np.zeros((3, 5)))
        '5x3'
    """
    return f"{array.shape[1]}x{array.shape[0]}"


def unequal(mask: np.ndarray, shape: Sequence[int], image: Path) -> str:
    """What is wrong with a mask of another size than its image.

    Args:
        mask: (H, W).
        shape: of the upright image, height first.
        image: its file, whose EXIF orientation is the usual reason.
    """
    height, width = shape[:2]
    turned = ""
    if mask.shape == (width, height) and (found := orientation(image)) >= 5:
        turned = f" as its EXIF orientation ({found}) shows it; draw the mask on that, or remove the tag"
    return f"mask is {size(mask)} but its image is {width}x{height}{turned or '; they must be equal'}"


def repeated_names(names: Sequence[str]) -> list[str]:
    """The names that stand in a list more than once, each once.

    Example:
        >>> repeated_names(["a", "b", "a", "c", "a"])
        ['a']
    """
    return [name for name, count in Counter(names).items() if count > 1]


def require_layout(root: Path, folders: Sequence[str], what: str) -> Path:
    """The root, if it holds these folders.

    Raises:
        ContsegError: it is not there, or holds something else: says what was expected and what was found.
    """
    if not root.is_dir():
        raise ContsegError(f"{root}: folder not found; expected {what}")
    if not all((root / folder).is_dir() for folder in folders):
        found = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
        told = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "") or "nothing"
        missing = next(folder for folder in folders if not (root / folder).is_dir())
        raise ContsegError(f"{root / missing}: folder not found; expected {what} ({', '.join(folders)}), found {told}")
    return root


def folder_of_each(names: Mapping[str, Sequence[str]], root: Path) -> dict[str, str]:
    """The folder of every sample, from the names of each folder.

    Raises:
        ContsegError: a name is of two folders, so that what is trained on would be tested on.

    Example:
        >>> folder_of_each({"training": ["a", "b"], "validation": ["c"]}, Path("data"))
        {'a': 'training', 'b': 'training', 'c': 'validation'}
    """
    folder_of: dict[str, str] = {}
    for folder, own in names.items():
        for name in own:
            if folder_of.setdefault(name, folder) != folder:
                raise ContsegError(f"{root}: '{name}' is in {folder_of[name]} and in {folder}; take it out of one")
    return folder_of


def require_folder(path: Path, what: str) -> Path:
    """The path, if it is a folder.

    Raises:
        ContsegError: it is not there.
    """
    if not path.is_dir():
        raise ContsegError(f"{path}: folder not found; expected {what}")
    return path

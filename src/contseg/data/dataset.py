"""Base class of datasets: a class table, lists of names, and reading one sample. Datasets are independent of steps."""

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

    Steps take their images from `train` and are measured on `test` (the official validation set if the official test set
    is not public, as for VOC and ADE20K).

    Attributes:
        name: name in recipes and for `open_dataset`.
        needs_folder: whether a folder is required; False if the dataset creates its own images.
        root: folder of the dataset.
        classes: classes of the ids in `read_mask`. As a class attribute: the table without options, if it is known before
            a folder is opened.
        domains: origins of the images (cities, sensors) in their usual order; empty if unknown.
        mirror: pairs of class ids that are exchanged when an image is flipped (left and right arm).
        counts_background: whether an ordinary class is used as background (ISPRS as released), so that splits count it and
            metrics include it.
        reading: bands and value range of image files.
        adds_background: whether an unscored background of id 0 may be added to a table without one in steps by class.
        notes: findings on opening that a user should know before training, one line each.
        left_out: unused rows of the dataset's files, as (file, row and reason).
        has_instances: whether samples have the label layer `instances` of `read_layers`, which distinguishes the objects of
            the table's `things`.
        is_divided: whether the files of the dataset divide its images into training and test images; False: `names` divides
            them by the hash of their names.
        selection_offset: added to class ids in published lists of this dataset before images are selected (ISPRS).
    """

    name: str
    needs_folder: ClassVar[bool] = True
    root: Path
    classes: ClassTable
    domains: tuple[str, ...] = ()
    mirror: tuple[tuple[int, int], ...] = ()
    counts_background: bool = False
    reading: Reading = AS_STORED
    has_instances: bool = False
    is_divided: bool = True
    selection_offset: int = 0
    adds_background: bool = False
    notes: tuple[str, ...] = ()
    left_out: tuple[tuple[Path, str], ...] = ()

    @abstractmethod
    def names(self, subset: SubsetName) -> list[str]:
        """Names of the samples of a subset, in list order (which published selections depend on)."""

    @abstractmethod
    def image_path(self, name: str) -> Path:
        """The image file of a sample."""

    @abstractmethod
    def mask_path(self, name: str) -> Path:
        """The file that contains the mask of a sample."""

    @classmethod
    def write_stand_in(cls, root: Path) -> None:
        """Write a few synthetic samples in this dataset's layout into a new folder, for `contseg dry-run`.

        Every class occurs in several images of `train` and in `test`, also without later classes, so that no step is empty.

        Raises:
            ContsegError: there is no synthetic version of this dataset.
        """
        raise ContsegError(
            f"data.dataset: '{cls.name}' has no synthetic images for a dry run; use another dataset or train on few images"
        )

    def domain_of(self, name: str) -> str:
        """The domain of a sample, one of `domains`; "" if the dataset has none."""
        return ""

    def read_mask(self, name: str) -> np.ndarray:
        """Mask (H, W) of dataset ids, uint8 or uint16. Override it if masks are not PNGs of ids.

        Raises:
            ContsegError: the file is missing or unreadable.
        """
        return read_mask(self.mask_path(name))

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 and mask (H, W) of dataset ids.

        Raises:
            ContsegError: a file is missing or unreadable, or the mask has another size than the image.
        """
        image, layers = self.read_layers(name)
        return image, layers["mask"]

    def read_labels(self, name: str) -> dict[str, np.ndarray]:
        """Label layers (H, W) of a sample: `mask`, and `instances` if the dataset has them.

        `instances` is uint16: the number of the object in its image, from 1, or `CROWD` (`contseg.data.segments`) where
        objects of a class are not distinguished; 0 on stuff and where nothing is annotated.

        Raises:
            ContsegError: as `read_mask`.
        """
        return {"mask": self.read_mask(name)}

    def read_layers(self, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Image (H, W, 3) uint8 and the layers of `read_labels`.

        Raises:
            ContsegError: as `read`.
        """
        image, layers = read_image(self.image_path(name), self.reading), self.read_labels(name)
        if image.shape[:2] != layers["mask"].shape:
            raise ContsegError(f"{self.mask_path(name)}: {unequal(layers['mask'], image.shape, self.image_path(name))}")
        return image, layers

    def flaws(self, name: str) -> list[str]:
        """What is wrong in the annotations of a sample that can be read, one line each, for `contseg data check`."""
        return []


def size(array: np.ndarray) -> str:
    """Width x height, for messages.

    Example:
        >>> size(np.zeros((3, 5)))
        '5x3'
    """
    return f"{array.shape[1]}x{array.shape[0]}"


def unequal(mask: np.ndarray, shape: Sequence[int], image: Path) -> str:
    """The error text for a mask whose size differs from its image's.

    Args:
        mask: (H, W).
        shape: shape of the upright image, height first.
        image: the image file; its EXIF orientation is the usual cause.
    """
    height, width = shape[:2]
    turned = ""
    if mask.shape == (width, height) and (found := orientation(image)) >= 5:
        turned = f" as its EXIF orientation ({found}) shows it; draw the mask on that, or remove the tag"
    return f"mask is {size(mask)} but its image is {width}x{height}{turned or '; they must be equal'}"


def recorded_size(recorded: tuple[int, int], found: tuple[int, int], image: Path) -> str:
    """The error text for an image whose (height, width) differs from the one that its annotations record."""
    turned = found == recorded[::-1] and orientation(image) >= 5
    return (
        f"records {image.name} as {recorded[1]}x{recorded[0]}, but the image is {found[1]}x{found[0]}"
        f"{' as its EXIF orientation shows it' if turned else ''}"
    )


def repeated_names(names: Sequence[str]) -> list[str]:
    """The names that occur more than once in a list, each once.

    Example:
        >>> repeated_names(["a", "b", "a", "c", "a"])
        ['a']
    """
    return [name for name, count in Counter(names).items() if count > 1]


def require_layout(root: Path, folders: Sequence[str], what: str) -> Path:
    """Return `root` if it contains these folders.

    Raises:
        ContsegError: the root or a folder is missing; the message lists what was expected and found.
    """
    if not root.is_dir():
        raise ContsegError(f"{root}: folder not found; expected {what}")
    if not all((root / folder).is_dir() for folder in folders):
        found = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "") or "nothing"
        missing = next(folder for folder in folders if not (root / folder).is_dir())
        raise ContsegError(f"{root / missing}: folder not found; expected {what} ({', '.join(folders)}), found {listed}")
    return root


def folder_of_each(names: Mapping[str, Sequence[str]], root: Path) -> dict[str, str]:
    """The folder of every sample, from the sample names of each folder.

    Raises:
        ContsegError: a name is in two folders, so training images would be tested on.

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
    """Return `path` if it is a folder.

    Raises:
        ContsegError: the folder is missing.
    """
    if not path.is_dir():
        raise ContsegError(f"{path}: folder not found; expected {what}")
    return path

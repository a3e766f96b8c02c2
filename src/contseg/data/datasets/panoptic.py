"""ADE20K and COCO with panoptic labels: classes, and objects of things, in PNGs of segment ids with a JSON file."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, require_layout
from contseg.data.datasets import panoptic_rows
from contseg.data.datasets.panoptic_rows import PanopticFile, read_panoptic
from contseg.data.files import read_segment_ids
from contseg.errors import ContsegError


class PanopticDataset(SegmentationDataset):
    """A dataset in COCO's panoptic format.

    A PNG has the id of a segment in every pixel, R + 256 G + 65536 B, 0 where nothing is annotated. The JSON file lists the
    ids of each PNG under `segments_info`, with `category_id`, and `iscrowd` for regions whose objects are not distinguished.

    Attributes:
        files: the JSON file of each subset.
    """

    has_instances = True
    files: ClassVar[Mapping[SubsetName, str]]

    def _open(self, background: bool) -> None:
        """Read the JSON files."""
        self._things = np.array(self.classes.things)
        self._file_of: dict[str, tuple[SubsetName, PanopticFile]] = {}
        self._names: dict[SubsetName, list[str]] = {}
        for subset, file in self.files.items():
            found = read_panoptic(self.root / file, self.classes, self._class_of)
            self._names[subset] = sorted(found.masks)
            for name in found.masks:
                if name in self._file_of:
                    raise ContsegError(f"{found.path}: '{name}' is also in {self.files['train']}; take it out of one")
                self._file_of[name] = subset, found
        if not background:
            self.classes = self.classes.without_background()

    def _class_of(self, categories: set[int], path: Path) -> Mapping[int, int]:
        """The class id of every category of a JSON file, that at `path`."""
        return {number: number for number in categories}

    def names(self, subset: SubsetName) -> list[str]:
        return list(self._names[subset])

    def image_path(self, name: str) -> Path:
        subset, file = self._file_of[name]
        return self._image_folder(subset) / file.images[name]

    def mask_path(self, name: str) -> Path:
        subset, file = self._file_of[name]
        return self._mask_folder(subset) / file.masks[name]

    @abstractmethod
    def _image_folder(self, subset: SubsetName) -> Path:
        """The folder of the images."""

    def _mask_folder(self, subset: SubsetName) -> Path:
        """The folder of the PNGs: that of the JSON file without its ending."""
        return self.root / self.files[subset].removesuffix(".json")

    def read_labels(self, name: str) -> dict[str, np.ndarray]:
        path, file = self.mask_path(name), self._file_of[name][1]
        mask, instances = panoptic_rows.read_as(read_segment_ids(path), file.segments(name), self._things, path)
        return {"mask": mask, "instances": instances}

    def read_mask(self, name: str) -> np.ndarray:
        return self.read_labels(name)["mask"]

    def flaws(self, name: str) -> list[str]:
        return panoptic_rows.overlaps(read_segment_ids(self.mask_path(name)), self._file_of[name][1].segments(name))


class ADE20KPanoptic(PanopticDataset):
    """SceneParse150 with objects: 100 things and 50 kinds of stuff, in the ids and the order of `ade20k`.

    Layout of `root` (a folder named `ADEChallengeData2016`, or its parent):

        images/training/ADE_train_00000001.jpg          20210 images
        images/validation/ADE_val_00000001.jpg          2000 images: the test set
        ade20k_panoptic_train/ADE_train_00000001.png    segment ids
        ade20k_panoptic_train.json                      their classes: categories 0 to 149, or 1 to 150
        ade20k_panoptic_val/, ade20k_panoptic_val.json

    Whether categories count from 0 or from 1 is decided by each file's own list of them, which must be whole: with a list of
    some of them, every class could be read as its neighbour.

    Args:
        root: the folder.
        background: as of `ade20k`.

    The PNGs are made of the benchmark's masks and of its `annotations_instance`. Zhou et al., Scene Parsing through ADE20K
    Dataset, CVPR 2017.

    Raises:
        ContsegError: a folder or JSON file is missing, a JSON file is broken, see `read_panoptic`, or its categories are
            neither 0 to 149 nor 1 to 150.
    """

    name = "ade20k-panoptic"
    classes = ClassTable.official("ade20k", "unlabelled", things=True)
    files: ClassVar[Mapping[SubsetName, str]] = {"train": "ade20k_panoptic_train.json", "test": "ade20k_panoptic_val.json"}
    folders: ClassVar[Mapping[SubsetName, str]] = {"train": "training", "test": "validation"}

    def __init__(self, root: Path | str, *, background: bool = True):
        inner = Path(root) / "ADEChallengeData2016"
        self.root = inner if inner.is_dir() else Path(root)
        masks = [file.removesuffix(".json") for file in self.files.values()]
        images = [f"images/{folder}" for folder in self.folders.values()]
        require_layout(self.root, [*images, *masks], "the ADEChallengeData2016 folder with panoptic labels")
        self._open(background)

    def _class_of(self, categories: set[int], path: Path) -> Mapping[int, int]:
        ids = sorted(self.classes.foreground)
        shift = ids[0] if 0 in categories else 0
        expected = [number - shift for number in ids]
        if categories == set(expected):
            return {number: number + shift for number in categories}
        missing, strange = sorted(set(expected) - categories), sorted(categories - set(expected))
        found = " and ".join(
            f"{len(numbers)} {what} ({', '.join(map(str, numbers[:3]))}{', ...' if len(numbers) > 3 else ''})"
            for numbers, what in ((missing, "missing"), (strange, "unknown"))
            if numbers
        )
        raise ContsegError(
            f"{path}: 'categories' has {len(categories)} ids, of {expected[0]} to {expected[-1]} {found}; list all 150, as 0"
            " to 149 or as 1 to 150"
        )

    def _image_folder(self, subset: SubsetName) -> Path:
        return self.root / "images" / self.folders[subset]


class COCOPanoptic(PanopticDataset):
    """COCO panoptic: 80 things and 53 kinds of stuff, whose ids are COCO's category ids (1 to 200, with gaps).

    Layout of `root`:

        train2017/000000000009.jpg                      118287 images; also under images/
        val2017/000000000139.jpg                        5000 images: the test set
        annotations/panoptic_train2017/000000000009.png segment ids
        annotations/panoptic_train2017.json             their classes
        annotations/panoptic_val2017/, annotations/panoptic_val2017.json

    Args:
        root: the folder.
        background: True: 134 outputs including one for unlabelled pixels, for steps by class; False: the 133 classes,
            unlabelled pixels ignored.

    Kirillov et al., Panoptic Segmentation, CVPR 2019; Lin et al., Microsoft COCO, ECCV 2014.

    Raises:
        ContsegError: a folder or JSON file is missing, or a JSON file is broken, see `read_panoptic`.
    """

    name = "coco-panoptic"
    classes = ClassTable.official("coco_panoptic", "unlabelled", things=True)
    files: ClassVar[Mapping[SubsetName, str]] = {
        "train": "annotations/panoptic_train2017.json",
        "test": "annotations/panoptic_val2017.json",
    }
    folders: ClassVar[Mapping[SubsetName, str]] = {"train": "train2017", "test": "val2017"}

    def __init__(self, root: Path | str, *, background: bool = True):
        self.root = Path(root)
        self._images = self.root / "images" if (self.root / "images" / "train2017").is_dir() else self.root
        require_layout(self._images, list(self.folders.values()), "COCO's folder of images")
        masks = [file.removesuffix(".json") for file in self.files.values()]
        require_layout(self.root, masks, "COCO's folder with panoptic labels")
        self._open(background)

    def _image_folder(self, subset: SubsetName) -> Path:
        return self._images / self.folders[subset]

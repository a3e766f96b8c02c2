"""LIP: Look into Person, single-person human parsing."""

from pathlib import Path

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, folder_of_each, require_layout
from contseg.data.lists import read_names

PARTS: dict[SubsetName, str] = {"train": "train", "test": "val"}


class LIP(SegmentationDataset):
    """LIP: 19 parts of clothed people and background, 30462 training and 10000 validation images.

    Layout of `root`:

        train_images/77_471474.jpg
        train_segmentations/77_471474.png     ids: 0 background, 1 to 19 parts; 255 ignored
        val_images/..., val_segmentations/... the test set
        train_id.txt, val_id.txt              lists of names

    Left and right are the person's, so the ids of arms, legs and shoes are exchanged when an image is flipped.

    Gong et al., Look into Person: Self-supervised Structure-sensitive Learning, CVPR 2017.

    Raises:
        ContsegError: a folder or list is missing, or a name is in both lists.
    """

    name = "lip"
    classes = ClassTable.official("lip", "annotated")
    mirror = ((14, 15), (16, 17), (18, 19))

    def __init__(self, root: Path | str):
        folders = [f"{part}_{kind}" for part in PARTS.values() for kind in ("images", "segmentations")]
        self.root = require_layout(Path(root), folders, "the LIP folder")
        self._names = {part: read_names(self.root / f"{part}_id.txt") for part in PARTS.values()}
        self._part_of = folder_of_each(self._names, self.root)

    def names(self, subset: SubsetName) -> list[str]:
        return list(self._names[PARTS[subset]])

    def image_path(self, name: str) -> Path:
        return self.root / f"{self._part_of[name]}_images" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        return self.root / f"{self._part_of[name]}_segmentations" / f"{name}.png"

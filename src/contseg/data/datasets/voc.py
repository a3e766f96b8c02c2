"""PASCAL VOC 2012, with the SBD masks if available."""

from pathlib import Path

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, require_folder, require_layout
from contseg.data.lists import read_names
from contseg.errors import ContsegError

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class VOC(SegmentationDataset):
    """PASCAL VOC 2012: 20 object classes and background, borders and difficult objects marked 255.

    Layout of `root` (a folder named `VOC2012`, or a folder with `VOCdevkit/VOC2012` or `VOC2012`):

        JPEGImages/2007_000032.jpg
        SegmentationClassAug/2007_000032.png    masks of VOC and SBD as ids; preferred
        SegmentationClass/2007_000032.png       the official palette masks (1464 for training)
        ImageSets/Segmentation/train_aug.txt    10582 names (also found as trainaug.txt), with SegmentationClassAug
        ImageSets/Segmentation/train.txt        1464 names, with SegmentationClass
        ImageSets/Segmentation/val.txt          1449 names: the test set of all published protocols

    As in some code bases, list lines may also have two paths (`/JPEGImages/x.jpg /SegmentationClassAug/x.png`).

    Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective, IJCV 2015;
    Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011.

    Raises:
        ContsegError: a folder or list is missing.
    """

    name = "voc"
    classes = ClassTable.of(NAMES)

    def __init__(self, root: Path | str):
        root = Path(root)
        inner = [root / "VOCdevkit" / "VOC2012", root / "VOC2012"]
        self.root = next((folder for folder in inner if folder.is_dir()), root)
        require_layout(self.root, ["JPEGImages", "ImageSets/Segmentation"], "the VOC2012 folder")
        augmented = self.root / "SegmentationClassAug"
        self._masks = augmented if augmented.is_dir() else self.root / "SegmentationClass"
        require_folder(self._masks, "SegmentationClassAug or SegmentationClass of VOC2012")

    def names(self, subset: SubsetName) -> list[str]:
        lists = self.root / "ImageSets" / "Segmentation"
        if subset == "test":
            choices = ["val.txt"]
        elif self._masks.name == "SegmentationClassAug":
            choices = ["train_aug.txt", "trainaug.txt"]
        else:
            choices = ["train.txt"]
        for choice in choices:
            if (lists / choice).is_file():
                return read_names(lists / choice, lambda name: self.image_path(name).is_file())
        raise ContsegError(f"{lists / choices[0]}: list not found; it belongs to {self._masks.name}")

    def image_path(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        return self._masks / f"{name}.png"

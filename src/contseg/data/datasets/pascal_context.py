"""Pascal-Context: VOC 2010 with every pixel labelled."""

from pathlib import Path

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, require_layout
from contseg.data.lists import read_names

LISTS: dict[SubsetName, str] = {"train": "train.txt", "test": "val.txt"}


class PascalContext(SegmentationDataset):
    """Pascal-Context with its 59 most frequent classes and background: 4998 training and 5105 validation images.

    Layout of `root` (a folder named `VOC2010`, or a folder with `VOCdevkit/VOC2010` or `VOC2010`):

        JPEGImages/2008_000002.jpg
        SegmentationClassContext/2008_000002.png          ids: 0 background (all rarer classes), 1 to 59; 255 ignored
        ImageSets/SegmentationContext/train.txt, val.txt  lists of names; val is the test set

    Args:
        root: the folder.
        background: True: Pascal-Context-60, with background as a class; False: Pascal-Context-59, background ignored.

    Mottaghi et al., The Role of Context for Object Detection and Semantic Segmentation in the Wild, CVPR 2014.

    Raises:
        ContsegError: a folder or list is missing.
    """

    name = "pascal-context"
    classes = ClassTable.official("pascal_context", "annotated")

    def __init__(self, root: Path | str, *, background: bool = True):
        inner = [Path(root) / "VOCdevkit" / "VOC2010", Path(root) / "VOC2010"]
        self.root = next((folder for folder in inner if folder.is_dir()), Path(root))
        folders = ["JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext"]
        require_layout(self.root, folders, "the VOC2010 folder with Pascal-Context")
        if not background:
            self.classes = self.classes.without_background()

    def names(self, subset: SubsetName) -> list[str]:
        path = self.root / "ImageSets" / "SegmentationContext" / LISTS[subset]
        return read_names(path, lambda name: self.image_path(name).is_file())

    def image_path(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        return self.root / "SegmentationClassContext" / f"{name}.png"

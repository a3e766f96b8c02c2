"""ADE20K in the form of the SceneParse150 benchmark."""

from pathlib import Path

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, folder_of_each, require_layout
from contseg.data.lists import files_like, read_names

FOLDERS: dict[SubsetName, str] = {"train": "training", "test": "validation"}


class ADE20K(SegmentationDataset):
    """SceneParse150: 150 classes of things and stuff; 0 marks unlabelled pixels.

    Layout of `root` (a folder named `ADEChallengeData2016`, or its parent):

        images/training/ADE_train_00000001.jpg          20210 images
        images/validation/ADE_val_00000001.jpg          2000 images: the test set of all published protocols
        annotations/training/ADE_train_00000001.png     ids: 0 unlabelled, 1 to 150 classes
        annotations/validation/ADE_val_00000001.png
        training.txt, validation.txt                    optional lists of names; without them, all images by name

    Args:
        root: the folder.
        background: True: 151 outputs including 0, for steps by class; False: the 150 classes of the benchmark with 0
            ignored, for training on all classes at once.

    Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.

    Raises:
        ContsegError: a folder is missing, or a name is in both lists.
    """

    name = "ade20k"
    classes = ClassTable.official("ade20k", "unlabelled")

    def __init__(self, root: Path | str, *, background: bool = True):
        inner = Path(root) / "ADEChallengeData2016"
        self.root = inner if inner.is_dir() else Path(root)
        folders = [f"{kind}/{part}" for kind in ("images", "annotations") for part in FOLDERS.values()]
        require_layout(self.root, folders, "the ADEChallengeData2016 folder")
        if not background:
            self.classes = self.classes.without_background()
        self._names = {folder: self._listed(folder) for folder in FOLDERS.values()}
        self._folder_of = folder_of_each(self._names, self.root)

    def _listed(self, folder: str) -> list[str]:
        path = self.root / f"{folder}.txt"
        if path.is_file():
            return read_names(path)
        return sorted(image.stem for image in files_like(self.root / "images" / folder, "*.jpg"))

    def names(self, subset: SubsetName) -> list[str]:
        return list(self._names[FOLDERS[subset]])

    def image_path(self, name: str) -> Path:
        return self.root / "images" / self._folder_of[name] / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        return self.root / "annotations" / self._folder_of[name] / f"{name}.png"

"""COCO-Stuff: 91 things and 91 kinds of stuff, in 10 thousand and in 164 thousand images."""

from pathlib import Path

import numpy as np

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, folder_of_each, require_layout
from contseg.data.files import read_mask
from contseg.data.limits import require_size
from contseg.data.lists import files_like, read_names
from contseg.data.recoding import Recoding
from contseg.errors import ContsegError

CLASSES = 182
"""Ids 1 to 182 as first published; eleven things (street sign, hat, ..., hair brush) never occur."""

FOLDERS: dict[SubsetName, str] = {"train": "train2017", "test": "val2017"}


class COCOStuff10k(SegmentationDataset):
    """COCO-Stuff 10k: 182 classes, 9000 training and 1000 test images.

    Layout of `root`:

        images/COCO_train2014_000000000077.jpg
        annotations/COCO_train2014_000000000077.mat     MATLAB, key `S`: 0 unlabelled, 1 to 182 classes
        annotations/COCO_train2014_000000000077.png     the same ids, used if there is no .mat
        imageLists/train.txt, test.txt                  lists of names

    Args:
        root: the folder.
        background: True: 183 outputs including 0, for steps by class; False: the 182 classes, 0 ignored.

    Caesar et al., COCO-Stuff: Thing and Stuff Classes in Context, CVPR 2018.

    Raises:
        ContsegError: a folder or list is missing, or SciPy is not installed (extra `mat`; when a .mat file is read).
    """

    name = "coco-stuff-10k"
    classes = ClassTable.official("coco_stuff", "unlabelled")

    def __init__(self, root: Path | str, *, background: bool = True):
        self.root = require_layout(Path(root), ["images", "annotations", "imageLists"], "the COCO-Stuff 10k folder")
        if not background:
            self.classes = self.classes.without_background()
        self._recode = Recoding({number: number for number in (*range(CLASSES + 1), IGNORE)})

    def names(self, subset: SubsetName) -> list[str]:
        return read_names(self.root / "imageLists" / f"{subset}.txt")

    def image_path(self, name: str) -> Path:
        return self.root / "images" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        matlab = self.root / "annotations" / f"{name}.mat"
        return matlab if matlab.is_file() else self.root / "annotations" / f"{name}.png"

    def read_mask(self, name: str) -> np.ndarray:
        path = self.mask_path(name)
        return self._recode(read_matlab(path) if path.suffix == ".mat" else read_mask(path), path)


class COCOStuff164k(SegmentationDataset):
    """COCO-Stuff 164k: 182 classes, 118287 training and 5000 validation images.

    Layout of `root`:

        train2017/000000000009.jpg, val2017/...                   val2017 is the test set; also under images/
        stuffthingmaps/train2017/000000000009.png, val2017/...    0 to 181 are classes 1 to 182, 255 is unlabelled;
                                                                  also under annotations/, or next to the images

    Args:
        root: the folder.
        background: True: 183 outputs including one for unlabelled pixels, for steps by class; False: the 182 classes,
            unlabelled pixels ignored.

    Caesar et al., COCO-Stuff: Thing and Stuff Classes in Context, CVPR 2018.

    Raises:
        ContsegError: a folder is missing, or an image is in both train2017 and val2017.
    """

    name = "coco-stuff-164k"
    classes = ClassTable.official("coco_stuff", "unlabelled")

    def __init__(self, root: Path | str, *, background: bool = True):
        self.root = Path(root)
        self._images = self.root / "images" if (self.root / "images" / "train2017").is_dir() else self.root
        require_layout(self._images, list(FOLDERS.values()), "the COCO-Stuff 164k folder")
        places = (self.root / folder for folder in ("stuffthingmaps", "annotations"))
        self._masks = next((place for place in places if (place / "train2017").is_dir()), self._images)
        if not any((self._masks / "train2017").glob("*.png")):
            raise ContsegError(f"{self.root / 'stuffthingmaps' / 'train2017'}: no masks (.png); unpack the stuffthingmaps")
        if not background:
            self.classes = self.classes.without_background()
        self._recode = Recoding({raw: raw + 1 for raw in range(CLASSES)} | {IGNORE: 0 if background else IGNORE})
        self._names = {
            folder: sorted(path.stem for path in files_like(self._images / folder, "*.jpg")) for folder in FOLDERS.values()
        }
        self._folder_of = folder_of_each(self._names, self._images)

    def names(self, subset: SubsetName) -> list[str]:
        return list(self._names[FOLDERS[subset]])

    def image_path(self, name: str) -> Path:
        return self._images / self._folder_of[name] / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        return self._masks / self._folder_of[name] / f"{name}.png"

    def read_mask(self, name: str) -> np.ndarray:
        path = self.mask_path(name)
        return self._recode(read_mask(path), path)


def read_matlab(path: Path) -> np.ndarray:
    """Read the array `S` of a MATLAB file (version 5), (H, W) uint8.

    Raises:
        ContsegError: SciPy is not installed, the file is missing or damaged, or `S` is missing or not a two-dimensional
            array of whole numbers up to 255.
    """
    try:
        from scipy.io import loadmat, whosmat
    except ImportError:
        raise ContsegError(f"{path}: .mat files need SciPy; pip install 'contseg[mat]'") from None
    try:
        for name, shape, _ in whosmat(path):
            if name == "S" and len(shape) == 2:
                require_size(path, *shape)
        content = loadmat(path, variable_names=["S"])
    except FileNotFoundError:
        raise ContsegError(f"{path}: mask not found; every image needs one of the same name") from None
    except ContsegError:
        raise
    except Exception as error:  # SciPy raises many kinds for damaged files
        raise ContsegError(f"{path}: cannot be read as a MATLAB file ({str(error)[:100]}); replace the file") from None
    mask = content.get("S")
    if mask is None or mask.ndim != 2 or mask.dtype.kind not in "iuf" or not np.isin(mask, range(IGNORE + 1)).all():
        raise ContsegError(f"{path}: has no two-dimensional array `S` of whole numbers 0 to 255; replace the file")
    return mask.astype(np.uint8)

"""Cityscapes: street scenes of 21 cities."""

from pathlib import Path

import numpy as np

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, folder_of_each, require_layout
from contseg.data.files import read_mask
from contseg.data.lists import files_like
from contseg.data.recoding import Recoding

CITIES = (
    "aachen", "bremen", "darmstadt", "erfurt", "hanover", "krefeld", "strasbourg", "tubingen", "weimar", "bochum", "cologne",
    "dusseldorf", "hamburg", "jena", "monchengladbach", "stuttgart", "ulm", "zurich", "frankfurt", "lindau", "munster",
)  # fmt: skip
"""Cities in the order of PLOP's domain protocol; the last three are the official validation set."""

SCORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids in the files that are classes of the benchmark."""

FOLDERS: dict[SubsetName, str] = {"train": "train", "test": "val"}
IMAGE, LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(SegmentationDataset):
    """Cityscapes, fine annotations: 19 classes, 2975 training and 500 validation images of 2048 x 1024 pixels.

    Layout of `root`:

        leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
        gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png      raw label ids
        leftImg8bit/val/..., gtFine/val/...                               frankfurt, lindau, munster: the test set

    Samples are named `aachen/aachen_000000_000019`; the city is the domain. Raw label ids become ids 1 to 19 (official
    train id + 1); the other ids (ego vehicle, parking, licence plate, ...) are ignored. Folders of other cities are domains
    too, after the 21 official ones.

    Args:
        root: the folder.
        background: True: adds an unscored output for pixels that a step does not annotate, for steps by class;
            False: the 19 classes only, for training on all classes at once or city by city.

    Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016; the steps by city: Douillard et
    al., PLOP, CVPR 2021.

    Raises:
        ContsegError: a folder is missing, or an image is in both train and val.
    """

    name = "cityscapes"
    classes = ClassTable.official("cityscapes", "unscored")

    def __init__(self, root: Path | str, *, background: bool = True):
        self.root = Path(root)
        folders = [f"{kind}/{part}" for kind in ("leftImg8bit", "gtFine") for part in FOLDERS.values()]
        require_layout(self.root, folders, "the Cityscapes folder")
        if not background:
            self.classes = self.classes.without_background()
        ids = dict.fromkeys([*range(34), IGNORE], IGNORE)
        self._recode = Recoding(ids | {raw: number for number, raw in enumerate(SCORED, start=1)})
        self._names = {folder: self._found(folder) for folder in FOLDERS.values()}
        self._folder_of = folder_of_each(self._names, self.root / "leftImg8bit")
        self.domains = (*CITIES, *sorted({self.domain_of(name) for name in self._folder_of} - {*CITIES}))

    def _found(self, folder: str) -> list[str]:
        top = self.root / "leftImg8bit" / folder
        found = sorted(path.relative_to(top).as_posix() for path in files_like(top, f"*/*{IMAGE}"))
        return [name.removesuffix(IMAGE) for name in found]

    def names(self, subset: SubsetName) -> list[str]:
        return list(self._names[FOLDERS[subset]])

    def domain_of(self, name: str) -> str:
        return name.split("/")[0]

    def image_path(self, name: str) -> Path:
        return self.root / "leftImg8bit" / self._folder_of[name] / f"{name}{IMAGE}"

    def mask_path(self, name: str) -> Path:
        return self.root / "gtFine" / self._folder_of[name] / f"{name}{LABEL}"

    def read_mask(self, name: str) -> np.ndarray:
        path = self.mask_path(name)
        return self._recode(read_mask(path), path)

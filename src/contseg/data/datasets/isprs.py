"""ISPRS 2D semantic labelling: patches of Potsdam and Vaihingen, as `contseg prepare isprs` cuts them."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from contseg.data.classes import IGNORE, ClassTable, Colour
from contseg.data.dataset import SegmentationDataset, SubsetName, require_folder, require_layout
from contseg.data.files import read_mask
from contseg.data.lists import files_like, read_names, read_text
from contseg.data.recoding import Recoding
from contseg.errors import ContsegError

CLASSES: dict[str, Colour] = {
    "impervious surfaces": (255, 255, 255),
    "building": (0, 0, 255),
    "low vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
}
"""The benchmark's classes and colours; a class's number in a patch is its place in this table."""

CLUTTER = 5
VAIHINGEN_FROM = 10001
"""The first number of a Vaihingen patch; Potsdam's are below 10000."""

MANIFEST = "prepared.json"
"""What `contseg prepare isprs` writes beside the patches: what they were cut from, and whether all are there."""

_FOLDERS: dict[SubsetName, str] = {"train": "training", "test": "validation"}
_LISTS: dict[SubsetName, str] = {"train": "train.txt", "test": "val.txt"}


def _paper_classes() -> ClassTable:
    names, colours = tuple(CLASSES), tuple(CLASSES.values())
    return ClassTable(("background", *names[:CLUTTER]), tuple(range(6)), (colours[5], *colours[:5]), "unscored")


def _released_classes() -> ClassTable:
    names, colours = tuple(CLASSES), tuple(CLASSES.values())
    return ClassTable(names[:CLUTTER], tuple(range(CLUTTER)), colours[:CLUTTER], "annotated", void=(CLUTTER,))


class ISPRS(SegmentationDataset):
    """Patches of the ISPRS tiles of Potsdam (RGB) and Vaihingen (infrared, red, green), five scored classes and clutter.

    Layout of `root`, which `contseg prepare isprs` writes:

        images/{training,validation}/00001.png          three channels
        annotations/{training,validation}/00001.png     one channel: 0 impervious surfaces, 1 building, 2 low vegetation,
                                                        3 tree, 4 car, 5 clutter; 255 is ignored
        train.txt, val.txt                              optional lists of numbers; without them, all there are, sorted

    Numbers up to 9999 are Potsdam, from 10001 on Vaihingen: the domains `potsdam` and `vaihingen`. Any tool may have cut
    the patches, but for this numbering.

    Args:
        root: the folder.
        variant: what the numbers of a patch become.
            `paper`: ids 1 to 5 are the five scored classes in their order; 0 is clutter and whatever a step does not
            annotate, and is never scored. An image belongs to a step if it holds one of the step's classes.
            `released`: as in the code of IDEC and LAG. Impervious surfaces (0) plays the background and is scored as one,
            classes are 1 to 4, and clutter (5) is void: background in training, ignored in testing. Their lists hold
            numbers one lower than their reader expects, so the images of class k are those that contain k - 1
            (`selection_offset` is 1): the step that learns cars gets every image with a tree. Splits count class 0 and
            figures include it (`counts_background`).
        background: False, of `paper` only: the five classes with no background among them, clutter ignored.

    Raises:
        ContsegError: a folder is missing, the cutting was stopped half-way, a file is not named by a number, a number is
            there twice, or an option is unknown.

    Source: ISPRS Commission II/4, 2D Semantic Labeling Contest, https://www.isprs.org (Potsdam, Vaihingen); Rottensteiner
    et al., The ISPRS benchmark on urban object classification and 3D building reconstruction, ISPRS Annals I-3, 2012.
    The setting: Zhao et al., Inherit with Distillation and Evolve with Contrast, TPAMI 2023.
    """

    name = "isprs"
    domains = ("potsdam", "vaihingen")

    def __init__(self, root: Path | str, *, variant: Literal["paper", "released"] = "paper", background: bool = True):
        self.root = require_folder(Path(root), "patches of ISPRS; contseg prepare isprs cuts them")
        if variant not in ("paper", "released"):
            raise ContsegError(f"data.options.variant: '{variant}' is unknown; known: paper, released")
        if variant == "released" and not background:
            raise ContsegError("data.options.background: false is of variant paper; in released, class 0 is the background")
        if variant == "paper":
            self.classes = _paper_classes() if background else _paper_classes().without_background()
            self._recode = Recoding({**{raw: raw + 1 for raw in range(CLUTTER)}, CLUTTER: 0, IGNORE: IGNORE})
        else:
            self.classes, self.selection_offset, self.counts_background = _released_classes(), 1, True
            self._recode = Recoding({raw: raw for raw in (*range(CLUTTER + 1), IGNORE)})
        _require_complete(self.root)
        folders = [f"{kind}/{folder}" for kind in ("images", "annotations") for folder in _FOLDERS.values()]
        require_layout(self.root, folders, "patches of ISPRS")
        self._places: dict[str, str] = {}
        for folder in _FOLDERS.values():
            for path in files_like(self.root / "images" / folder, "*.png"):
                if path.stem in self._places:
                    raise ContsegError(f"{path}: is in images/{self._places[path.stem]} too; a number is one patch")
                patch_number(path)
                self._places[path.stem] = folder

    def names(self, subset: SubsetName) -> list[str]:
        listed, folder = self.root / _LISTS[subset], _FOLDERS[subset]
        if listed.is_file():
            names = read_names(listed, self._places.__contains__)
            absent = [name for name in names if name not in self._places]
            if absent:
                raise ContsegError(f"{listed}: names {len(absent)} patches that are not in images/, first '{absent[0]}'")
            return names
        names = [name for name, place in self._places.items() if place == folder]
        if not names:
            raise ContsegError(f"{self.root / 'images' / folder}: holds no patches; expected files such as 00001.png")
        return names

    def image_path(self, name: str) -> Path:
        return self.root / "images" / self._places[name] / f"{name}.png"

    def mask_path(self, name: str) -> Path:
        return self.root / "annotations" / self._places[name] / f"{name}.png"

    def domain_of(self, name: str) -> str:
        return self.domains[int(name) >= VAIHINGEN_FROM]

    def read_mask(self, name: str) -> np.ndarray:
        path = self.mask_path(name)
        return self._recode(read_mask(path), path)


def _require_complete(root: Path) -> None:
    """Refuse a folder that was cut half; one that something else cut has no record, and is taken as it is."""
    if not (root / MANIFEST).is_file():
        return
    try:
        sections = json.loads(read_text(root / MANIFEST))
        unfinished = [domain for domain, section in sections.items() if not section["complete"]]
    except (ValueError, TypeError, AttributeError, KeyError):
        raise ContsegError(f"{root / MANIFEST}: cannot be understood; cut the patches again with --overwrite") from None
    if unfinished:
        raise ContsegError(f"{root}: the patches of {unfinished[0]} are not all there; run contseg prepare isprs again")


def patch_number(path: Path) -> int:
    """The number that a patch is named by.

    Raises:
        ContsegError: the name is no number, 0 or 10000.

    Example:
        >>> patch_number(Path("images/training/00012.png"))
        12
    """
    number = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else 0
    if number in (0, VAIHINGEN_FROM - 1):
        raise ContsegError(f"{path}: patches are named by numbers, 00001 to 09999 (Potsdam) or from 10001 on (Vaihingen)")
    return number

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
"""Classes and colours of the benchmark; the position in this table is the value in a patch."""

CLUTTER = 5
VAIHINGEN_FROM = 10001
"""The first number of a Vaihingen patch; Potsdam's are below 10000."""

MANIFEST = "prepared.json"
"""Written by `contseg prepare isprs` next to the patches: their origin, and whether all are complete."""

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
        train.txt, val.txt                              optional lists of numbers; default: all patches, sorted

    Numbers up to 9999 are Potsdam, from 10001 on Vaihingen: the domains `potsdam` and `vaihingen`. Patches of other tools
    work too if they are numbered like this.

    Args:
        root: the folder.
        variant: the ids of a patch.
            `paper`: ids 1 to 5 are the five scored classes in order; 0 is clutter and pixels that a step does not annotate,
            never scored. An image belongs to a step if it contains one of the step's classes.
            `released`: as in the code of IDEC and LAG. Impervious surfaces (0) are used and scored as background, classes
            are 1 to 4, and clutter (5) is void: background in training, ignored in testing. The published lists contain
            ids one lower than their reader expects, so the images of class k are those that contain k - 1
            (`selection_offset` is 1): the step that learns cars gets every image with a tree. Splits count class 0 and
            metrics include it (`counts_background`).
        background: False (`paper` only): the five classes without a background, clutter ignored.

    Raises:
        ContsegError: a folder is missing, cutting was interrupted, a file name is not a number, a number occurs twice, or
            an option is unknown.

    Source: ISPRS Commission II/4, 2D Semantic Labeling Contest, https://www.isprs.org (Potsdam, Vaihingen); Rottensteiner
    et al., The ISPRS benchmark on urban object classification and 3D building reconstruction, ISPRS Annals I-3, 2012.
    The setting: Zhao et al., Inherit with Distillation and Evolve with Contrast, TPAMI 2023.
    """

    name = "isprs"
    classes = _paper_classes()
    domains = ("potsdam", "vaihingen")

    def __init__(self, root: Path | str, *, variant: Literal["paper", "released"] = "paper", background: bool = True):
        self.root = require_folder(Path(root), "patches of ISPRS; contseg prepare isprs cuts them")
        if variant not in ("paper", "released"):
            raise ContsegError(f"data.options.variant: '{variant}' is unknown; known: paper, released")
        if variant == "released" and not background:
            raise ContsegError("data.options.background: false needs variant paper; in released, class 0 is the background")
        if variant == "paper":
            if not background:
                self.classes = self.classes.without_background()
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
                    raise ContsegError(f"{path}: is in images/{self._places[path.stem]} too; numbers must be unique")
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
    """Raise ContsegError if cutting was interrupted. Patches of other tools have no record and are accepted."""
    if not (root / MANIFEST).is_file():
        return
    try:
        sections = json.loads(read_text(root / MANIFEST))
        unfinished = [domain for domain, section in sections.items() if not section["complete"]]
    except (ValueError, TypeError, AttributeError, KeyError):
        raise ContsegError(f"{root / MANIFEST}: cannot be read; cut the patches again with --overwrite") from None
    if unfinished:
        raise ContsegError(f"{root}: patches of {unfinished[0]} are missing; run contseg prepare isprs again")


def patch_number(path: Path) -> int:
    """The number in a patch's name.

    Raises:
        ContsegError: the name is not a number, or is 0 or 10000.

    Example:
        >>> patch_number(Path("images/training/00012.png"))
        12
    """
    number = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else 0
    if number in (0, VAIHINGEN_FROM - 1):
        raise ContsegError(f"{path}: patches are named by numbers, 00001 to 09999 (Potsdam) or from 10001 on (Vaihingen)")
    return number

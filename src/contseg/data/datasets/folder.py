"""A user's data: a folder of images, a folder of masks, a class list."""

from pathlib import Path
from typing import Any

import numpy as np

from contseg.data.dataset import SegmentationDataset, SubsetName, require_folder
from contseg.data.datasets.class_list import read_class_list
from contseg.data.datasets.division import Division
from contseg.data.datasets.own_masks import find_masks, missing_mask, read_values, sample_name
from contseg.data.listing import IMAGE_SUFFIXES, image_files
from contseg.data.recoding import Recoding
from contseg.errors import ContsegError, counted

_LAYOUTS = (
    ("images", "masks", ""),
    ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    ("images", "SegmentationClass", "ImageSets/Segmentation"),
)


class Folder(SegmentationDataset):
    """Any folder with `images/`, `masks/` and a class list.

    Layout of `root`:

        images/street/01.jpg        any depth; JPEG, PNG, BMP, WebP or TIFF
        masks/street/01.png         the same name, with another suffix (.tif, .bmp, .PNG, ...) or as 01_mask.png
        classes.txt                 one name per line: line 1 is id 0, background; line 2 is id 1; ...
        classes.yaml                instead of classes.txt: `{0: background, 7: car}` or a list of
                                    `{id: 7, name: car, colour: [0, 0, 142]}`
        train.txt, test.txt         optional lists of names (`street/01`), or test.txt alone; or folders images/train and
                                    images/test (val, valid). With neither, about a fifth is held out by the hash of
                                    the name.

    or as CVAT exports it ("Segmentation mask 1.1"; `labelme2voc` has class_names.txt):

        JPEGImages/ (or images/), SegmentationClass/, labelmap.txt, and optionally ImageSets/Segmentation/train.txt and
        test.txt (val.txt)

    In commands and recipes, dataset `folder` also reads COCO's and labelme's JSON: the format of a folder is detected
    (`open_labelled`).

    Masks contain ids (grey, palette, or the same number in three channels), or the colours listed in `classes.yaml` or
    `labelmap.txt`. Linked folders are followed; hidden files are skipped. Names are compared in one Unicode form (NFC).

    Args:
        root: the folder.
        background: the meaning of id 0.
            `annotated`: annotated background;
            `unlabelled`: pixels without annotation, of any class in training, never scored;
            `none`: an ordinary class, or unused. In steps by class, an unscored background is added for pixels that a step
            does not annotate; it has id 0, so ids 0, 1, 2, ... become 1, 2, 3, ...
            True means `annotated`, False means `none`. Default: `unlabelled` if no class has id 0 or it is called so (or
            `void`, `ignore`), `annotated` if it has another name of a background; required otherwise.
        partial: leave images without a mask out, with a note; otherwise, every image needs one.

    Raises:
        ContsegError: a file or folder is missing, the class list is invalid, or the meaning of id 0 is unknown.
    """

    name = "folder"
    adds_background = True

    def __init__(self, root: Path | str, *, background: Any = None, partial: bool = False):
        self.root = require_folder(Path(root), "a dataset folder with images/, masks/ and classes.txt")
        images, masks, lists = self._layout()
        self._mask_folder = masks
        self._listed = read_class_list(self.root, background)
        self.classes = self._listed.table
        self._recode = Recoding({**self._listed.id_of, 255: 255}) if self._listed.id_of else None
        self._images: dict[str, Path] = {}
        for path in image_files(images):
            name = sample_name(path, images)
            if name in self._images:
                raise ContsegError(
                    f"{path}: has the same name as {self._images[name].name}; masks are found by name, so rename one"
                )
            self._images[name] = path
        if not self._images:
            raise ContsegError(f"{images}: no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
        self._masks = find_masks(masks, self._images)
        self._division = Division(self._images, lists, images)
        self.is_divided = self._division.is_divided
        self._partial = partial and bool(self._masks)
        without = [name for name in self._images if name not in self._masks]
        if self._partial and without:
            self.notes = (f"{counted(len(without), 'image')} without a mask: not used, such as '{without[0]}'",)

    def _layout(self) -> tuple[Path, Path, Path]:
        """The folders of images, masks and lists."""
        for images, masks, lists in _LAYOUTS:
            if (self.root / images).is_dir() and (self.root / masks).is_dir():
                return self.root / images, self.root / masks, self.root / lists
        found = sorted(path.name + "/" * path.is_dir() for path in self.root.iterdir() if not path.name.startswith("."))
        listed = (", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")) or "nothing"
        missing = "masks" if (self.root / "images").is_dir() else "images"
        raise ContsegError(
            f"{self.root / missing}: folder not found; expected images/, masks/ and classes.txt, JPEGImages/ and"
            f" SegmentationClass/ of CVAT, or JSON files of COCO or labelme; found {listed}"
        )

    def names(self, subset: SubsetName) -> list[str]:
        names = self._division.names(subset)
        return [name for name in names if name in self._masks] if self._partial else names

    def image_path(self, name: str) -> Path:
        return self._images[name]

    def mask_path(self, name: str) -> Path:
        return self._masks.get(name, self._mask_folder / f"{name}.png")

    def read_mask(self, name: str) -> np.ndarray:
        path = self.mask_path(name)
        if not path.is_file():
            raise missing_mask(self._mask_folder, name)
        values = read_values(path, self._listed.colours or {}, self._listed.palette_colours)
        return values if self._recode is None else self._recode(values, path)

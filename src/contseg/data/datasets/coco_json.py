"""A user's data in COCO's JSON format: polygons and run lengths become masks of classes."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contseg.data.classes import IGNORE, ClassTable, voc_palette
from contseg.data.dataset import SegmentationDataset, SubsetName, recorded_size, require_folder
from contseg.data.datasets.coco_layout import find_places
from contseg.data.datasets.coco_rows import CocoFile, Image, read_coco
from contseg.data.datasets.coco_segments import mask_tools, segment
from contseg.data.datasets.division import held_out
from contseg.data.files import image_size
from contseg.data.lists import without_ending
from contseg.errors import ContsegError, did_you_mean


class CocoJSON(SegmentationDataset):
    """Images with objects annotated in COCO's format (COCO itself, and what most annotation tools export).

    Layout of `root`; each place can be given as an option, relative to `root`:

        annotations/instances_train.json    or instances_train2017.json; `images`, `annotations`, `categories`
        annotations/instances_val.json      or instances_val2017.json, instances_test.json: the test set
        train/, val/                        or train2017/, val2017/, images/train/, images/val/: the images, by the
                                            `file_name` of the JSON

    or as Roboflow exports it: `train/_annotations.coco.json` next to its images, `test/` or `valid/` for test. If there is
    only one file (CVAT's `annotations/instances_default.json` with `images/default/`, `result.json` with `images/`), about
    a fifth of its images is held out for test, by the hash of their names.

    A sample's name is its image's path in `root` without suffix (`train/street/01`). Classes of both files are matched by
    name. Class ids are the category ids of the training file if all of them are 1 to 254, otherwise 1, 2, 3, ... in the
    order of the category ids; 0 marks unannotated pixels. Where objects overlap, the one with fewer pixels wins (of equals,
    the later one in the file); regions marked `iscrowd` count as objects. The polygons of one annotation are united, as in
    COCO's own tools, so holes need run lengths.

    Rows without a usable shape are skipped (`left_out`, see `read_coco`), and `notes` counts them.

    Both files are read when the dataset is opened and stay in memory.

    Args:
        root: the folder.
        train_json, test_json: the JSON files.
        train_images, test_images: the folders of images.
        drop: names of categories to leave out, with their objects.
        rename: new names of categories; two with the same new name become one class.

    Raises:
        ContsegError: pycocotools is not installed (extra `coco`), a file or folder is missing, a file is not JSON or lacks
            a key, or a test object has a class that the training file does not list.

    Source: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; https://cocodataset.org/#format-data
    """

    name = "coco-json"

    def __init__(
        self,
        root: Path | str,
        *,
        train_json: str | None = None,
        test_json: str | None = None,
        train_images: str | None = None,
        test_images: str | None = None,
        drop: Sequence[str] = (),
        rename: Mapping[str, str] | None = None,
    ):
        mask_tools()
        self.root = require_folder(Path(root), "a dataset folder with annotations/, train/ and val/")
        dropped, renamed = _names_of(drop), _renames(rename)
        places, notes = find_places(
            self.root, {"train": train_json, "test": test_json}, {"train": train_images, "test": test_images}
        )
        files = {
            subset: read_coco(place.json, place.images, dropped, renamed)
            for subset, place in places.items()
            if place.json is not None
        }
        _require_used(dropped, renamed, list(files.values()))
        train = files["train"]
        self.classes, self._id_of = _class_table(train)
        _require_known(train, files.get("test"))
        self._names: dict[SubsetName, list[str]] = {"train": [], "test": []}
        self._images: dict[str, Image] = {}
        for subset, file in files.items():
            for image in file.images.values():
                self._add(subset, image)
        self.is_divided = "test" in files
        if not self.is_divided:
            held = held_out(self._names["train"])
            self._names["test"] = [name for name in self._names["train"] if name in held]
            self._names["train"] = [name for name in self._names["train"] if name not in held]
        self.left_out = tuple((file.path, text) for file in files.values() for text in file.left_out)
        self.notes = (*notes, *(_summary(file) for file in files.values() if file.left_out))

    def _add(self, subset: SubsetName, image: Image) -> None:
        try:
            name = image.path.relative_to(self.root)
        except ValueError:  # an option gave a folder elsewhere
            name = image.path
        label = unicodedata.normalize("NFC", without_ending(name.as_posix()))
        if label in self._images:
            other = self._images[label]
            raise ContsegError(
                f"{image.json}: lists {name.as_posix()}, and {other.json.name} lists {other.path.name}, which has the same"
                " name; each image must be there once"
            )
        self._names[subset].append(label)
        self._images[label] = image

    def names(self, subset: SubsetName) -> list[str]:
        if not self._names[subset] and (self.is_divided or subset == "train"):
            raise ContsegError(f"{self.root}: the JSON file of the {subset} subset lists no images")
        return list(self._names[subset])

    def image_path(self, name: str) -> Path:
        return self._images[name].path

    def mask_path(self, name: str) -> Path:
        return self._images[name].json

    def read_mask(self, name: str) -> np.ndarray:
        """Mask (H, W) of ids, uint8 or uint16.

        Raises:
            ContsegError: a polygon or run lengths are broken, or the image is missing or of another size than recorded.
        """
        image = self._images[name]
        size = found = image_size(image.path)
        if image.height is not None and image.width is not None:
            size = (image.height, image.width)
        if found != size:
            raise ContsegError(f"{image.json}: {recorded_size(size, found, image.path)}")
        segments = []
        for label, class_name, segmentation in image.objects:
            try:
                pixels = segment(segmentation, *size)
            except ValueError as error:
                raise ContsegError(f"{image.json}: {label} of {image.path.name}: {error}") from None
            segments.append((int(pixels.sum()), class_name, pixels))
        mask = np.zeros(size, dtype=np.uint8 if max(self.classes.ids) <= IGNORE else np.uint16)
        for _, class_name, pixels in sorted(segments, key=lambda one: -one[0]):
            mask[pixels] = self._id_of.get(class_name, 0)  # an annotated background
        return mask


def _names_of(drop: Any) -> frozenset[str]:
    """The option `drop` as names."""
    if isinstance(drop, str):
        return frozenset([drop])
    if not isinstance(drop, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in drop):
        raise ContsegError(f"data.options.drop: {drop!r} is not a list of category names")
    return frozenset(drop)


def _renames(rename: Any) -> dict[str, str]:
    """The option `rename` as names by name."""
    given = {} if rename is None else rename
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for pair in given.items() for name in pair):
        raise ContsegError(f"data.options.rename: {rename!r} is not a mapping of names; write {{old: new}}")
    return dict(given)


def _require_used(drop: frozenset[str], rename: Mapping[str, str], files: Sequence[CocoFile]) -> None:
    """Raise ContsegError if an option names a category that no file lists."""
    listed = {name for file in files for name in file.listed}
    for key, names, known in (("rename", rename, listed), ("drop", drop, {rename.get(name, name) for name in listed})):
        for name in sorted(names):
            if name not in known:
                raise ContsegError(f"data.options.{key}: no category '{name}'; {did_you_mean(name, sorted(known))}")


def _class_table(file: CocoFile) -> tuple[ClassTable, dict[str, int]]:
    """The class table, and the mask id of each class."""
    if not file.names:
        raise ContsegError(f"{file.path}: no category left to learn; {'; '.join(file.left_out[-3:])}")
    ids = list(file.names)
    if not all(0 < number < IGNORE for number in ids):
        ids = [number for number in range(1, len(ids) + 2) if number != IGNORE][: len(ids)]
    palette = voc_palette()
    colours = ((0, 0, 0), *(palette[number % 256] for number in ids))
    table = ClassTable(("background", *file.names.values()), (0, *ids), colours, "unlabelled")
    return table, dict(zip(file.names.values(), ids, strict=True))


def _require_known(train: CocoFile, test: CocoFile | None) -> None:
    """Raise ContsegError unless training has the class of every test object; unused test classes may be missing there."""
    unknown = sorted(test.used - set(train.names.values())) if test else []
    if test and unknown:
        raise ContsegError(
            f"{test.path}: has objects of '{unknown[0]}', which is not a class of {train.path}; add it there, or"
            f" set data.options.drop=['{unknown[0]}'] or data.options.rename"
        )


def _summary(file: CocoFile) -> str:
    """One line on the skipped rows of a file."""
    counted = Counter(text.partition(" ")[0] for text in file.left_out)
    parts = [f"{count} {kind if count == 1 else _PLURALS[kind]}" for kind, count in counted.items()]
    return (
        f"{file.path}: {' and '.join(parts)} of {file.rows} annotations left out or changed, such as {file.left_out[0]};"
        " `contseg data check` lists them"
    )


_PLURALS = {"annotation": "annotations", "category": "categories"}

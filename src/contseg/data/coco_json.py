"""Your own data, annotated in COCO's JSON: objects as polygons or run lengths become masks of classes."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contseg.data.classes import IGNORE, ClassTable, voc_palette
from contseg.data.coco_segments import mask_tools, segment
from contseg.data.dataset import SegmentationDataset, SubsetName, require_folder
from contseg.data.files import image_size, orientation, read_text
from contseg.errors import ContsegError

_JSONS = {
    "train": ("annotations/instances_train.json", "annotations/instances_train2017.json"),
    "test": ("annotations/instances_val.json", "annotations/instances_val2017.json"),
}
_IMAGES = {"train": ("train", "train2017"), "test": ("val", "val2017")}


@dataclass
class _Image:
    """One image of a JSON file, and what is annotated in it: (annotation, category id, segmentation)."""

    json: Path
    path: Path
    height: int
    width: int
    objects: list[tuple[str, int, Any]] = field(default_factory=list)


class CocoJSON(SegmentationDataset):
    """Images with objects annotated in COCO's format (COCO itself, and what most annotation tools export).

    Layout of `root`; each place can be given as an option, relative to `root`:

        annotations/instances_train.json    or instances_train2017.json; `images`, `annotations`, `categories`
        annotations/instances_val.json      or instances_val2017.json: the test set
        train/, val/                        or train2017/, val2017/: the images, by the `file_name` of the JSON

    A sample's name is its image's path in `root` without suffix (`train/street/01`). Class ids are the category ids where
    all of them are 1 to 254, otherwise 1, 2, 3, ... in the order of the category ids; 0 is what nobody annotated. Where
    objects overlap, the one of fewer pixels wins (of equals, the later in the file); regions marked `iscrowd` count as
    objects. The polygons of one annotation are united, as COCO's own tools do: holes take run lengths.

    Both files are read whole when the dataset is opened and stay in memory.

    Args:
        root: the folder.
        train_json, test_json: the JSON files.
        train_images, test_images: the folders of images.

    Raises:
        ContsegError: pycocotools is not installed (extra `coco`), a file or folder is missing, a JSON file is none, lacks
            a key, contradicts the other one, or annotates an image or category that it does not list.

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
    ):
        mask_tools()
        self.root = require_folder(Path(root), "a dataset folder with annotations/, train/ and val/")
        jsons = {"train": train_json, "test": test_json}
        folders = {"train": train_images, "test": test_images}
        self._names: dict[str, list[str]] = {}
        self._images: dict[str, _Image] = {}
        categories: dict[str, dict[int, str]] = {}
        paths: dict[str, Path] = {}
        for subset in ("train", "test"):
            choices = [given] if (given := jsons[subset]) else list(_JSONS[subset])
            paths[subset] = next((self.root / one for one in choices if (self.root / one).is_file()), self.root / choices[0])
            folder = self._folder(subset, folders[subset])
            content = _read_json(paths[subset])
            categories[subset] = _categories(content, paths[subset])
            images = _images(content, paths[subset], self.root / folder)
            _annotate(images, content, paths[subset], categories[subset])
            self._names[subset] = []
            for image in images.values():
                self._add(subset, image)
        if categories["train"] != categories["test"]:
            differing = sorted(dict(set(categories["train"].items()) ^ set(categories["test"].items())))
            raise ContsegError(
                f"{paths['test']}: its categories are not those of {paths['train'].name}; category {differing[0]} differs"
            )
        self.classes, self._id_of = _class_table(categories["train"], paths["train"])

    def _folder(self, subset: SubsetName, given: str | None) -> str:
        choices = [given] if given else list(_IMAGES[subset])
        found = next((one for one in choices if (self.root / one).is_dir()), choices[0])
        require_folder(self.root / found, f"the {subset} images; data.options.{subset}_images names another folder")
        return found

    def _add(self, subset: SubsetName, image: _Image) -> None:
        try:
            name = image.path.relative_to(self.root)
        except ValueError:  # an option gave a folder elsewhere
            name = image.path
        label = name.with_suffix("").as_posix()
        if label in self._images:
            other = self._images[label]
            raise ContsegError(
                f"{image.json}: lists {name.as_posix()}, and {other.json.name} lists {other.path.name}, which has the same"
                " name; each image must be there once"
            )
        self._names[subset].append(label)
        self._images[label] = image

    def names(self, subset: SubsetName) -> list[str]:
        if not self._names[subset]:
            raise ContsegError(f"{self.root}: the JSON file of the {subset} images lists none")
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
        size = (image.height, image.width)
        found = image_size(image.path)
        if found != size:
            is_turned = found == size[::-1] and orientation(image.path) >= 5
            raise ContsegError(
                f"{image.json}: records {image.path.name} as {size[1]}x{size[0]}, but the image is {found[1]}x{found[0]}"
                f"{' as its EXIF orientation shows it' if is_turned else ''}"
            )
        segments = []
        for label, category, segmentation in image.objects:
            try:
                pixels = segment(segmentation, *size)
            except ValueError as error:
                raise ContsegError(f"{image.json}: {label} of {image.path.name}: {error}") from None
            segments.append((int(pixels.sum()), category, pixels))
        mask = np.zeros(size, dtype=np.uint8 if max(self.classes.ids) <= IGNORE else np.uint16)
        for _, category, pixels in sorted(segments, key=lambda one: -one[0]):
            mask[pixels] = self._id_of[category]
        return mask


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a COCO file, with its three lists."""
    if not path.is_file():
        raise ContsegError(f"{path}: not found; options train_json and test_json name other files")
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ContsegError(f"{path}: not JSON ({error})") from None
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ContsegError(f"{path}: '{key}' is missing or no list of objects; is it COCO's instances format?")
    return content


def _get(row: dict[str, Any], key: str, kind: type, path: Path, label: str) -> Any:
    """A value of a row of the file; wrong or missing ones are told with the row."""
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "is missing" if key not in row else f"is {str(value)[:40]!r}, expected {kind.__name__}"
        raise ContsegError(f"{path}: {label}: '{key}' {what}")
    return value


def _label(kind: str, row: dict[str, Any], position: int) -> str:
    return f"{kind} {row['id']}" if "id" in row else f"{kind} number {position} of the list"


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    """Names by category id, in the order of the ids."""
    names: dict[int, str] = {}
    for position, row in enumerate(content["categories"], 1):
        label = _label("category", row, position)
        number, name = _get(row, "id", int, path, label), _get(row, "name", str, path, label)
        if number in names:
            raise ContsegError(f"{path}: {label}: this id stands twice")
        names[number] = name
    if not names:
        raise ContsegError(f"{path}: 'categories' is empty")
    return dict(sorted(names.items()))


def _class_table(categories: dict[int, str], path: Path) -> tuple[ClassTable, dict[int, int]]:
    """The class table, and the mask id of each category id."""
    ids = list(categories)
    if not all(0 < number < IGNORE for number in ids):
        ids = [number for number in range(1, len(ids) + 2) if number != IGNORE][: len(ids)]
    palette = voc_palette()
    colours = ((0, 0, 0), *(palette[number % 256] for number in ids))
    try:
        table = ClassTable(("background", *categories.values()), (0, *ids), colours, "unlabelled")
    except ContsegError as error:
        raise ContsegError(f"{path}: {error}") from None
    return table, dict(zip(categories, ids, strict=True))


def _images(content: dict[str, Any], path: Path, folder: Path) -> dict[int | str, _Image]:
    """The images of the file by their id."""
    images: dict[int | str, _Image] = {}
    for position, row in enumerate(content["images"], 1):
        label = _label("image", row, position)
        number = row.get("id")
        if not isinstance(number, int | str):
            raise ContsegError(f"{path}: {label}: 'id' is missing or no number")
        if number in images:
            raise ContsegError(f"{path}: {label}: this id stands twice")
        file = _get(row, "file_name", str, path, label)
        height, width = (_get(row, key, int, path, label) for key in ("height", "width"))
        if min(height, width) < 1:
            raise ContsegError(f"{path}: {label}: is {width}x{height} pixels")
        images[number] = _Image(path, folder / file, height, width)
    return images


def _annotate(images: dict[int | str, _Image], content: dict[str, Any], path: Path, categories: dict[int, str]) -> None:
    """Hand every annotation to its image, so that reading a mask looks at no other."""
    for position, row in enumerate(content["annotations"], 1):
        label = _label("annotation", row, position)
        for key in ("id", "image_id", "category_id", "segmentation"):
            if key not in row:
                raise ContsegError(f"{path}: {label}: '{key}' is missing")
        image, category = row["image_id"], row["category_id"]
        if not isinstance(image, int | str) or image not in images:
            raise ContsegError(f"{path}: {label}: is of image {image}, which 'images' does not list")
        if not isinstance(category, int) or category not in categories:
            raise ContsegError(f"{path}: {label}: has category {category}, which 'categories' does not list")
        images[image].objects.append((label, category, row["segmentation"]))

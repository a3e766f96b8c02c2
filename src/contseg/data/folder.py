"""Your own data: a folder of images, a folder of masks, a list of classes."""

import hashlib
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contseg.data.classes import ClassTable, voc_palette
from contseg.data.dataset import SegmentationDataset, SubsetName, require_folder
from contseg.data.files import IMAGE_SUFFIXES, read_list, read_text
from contseg.errors import ContsegError


class Folder(SegmentationDataset):
    """Any folder with `images/`, `masks/` and a class list.

    Layout of `root`:

        images/street/01.jpg        any depth; JPEG, PNG, BMP, WebP or TIFF
        masks/street/01.png         the same name, grey or palette ids
        classes.txt                 one name per line: line 1 is id 0, background; line 2 is id 1; ...
        classes.yaml                instead of classes.txt: `{0: background, 7: car}` or a list of
                                    `{id: 7, name: car, colour: [0, 0, 142]}`
        train.txt, test.txt         optional lists of names (`street/01`); or folders images/train and images/test
                                    (or images/val). With neither, every fifth image by the hash of its name is for test.

    Raises:
        ContsegError: something is missing, or the class list cannot be read.
    """

    name = "folder"

    def __init__(self, root: Path | str):
        self.root = require_folder(Path(root), "a dataset folder with images/, masks/ and classes.txt")
        images = require_folder(self.root / "images", "images/ of the dataset folder")
        require_folder(self.root / "masks", "masks/ of the dataset folder")
        self.classes = read_class_list(self.root)
        self._images: dict[str, Path] = {}
        for path in sorted(images.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                name = path.relative_to(images).with_suffix("").as_posix()
                if name in self._images:
                    raise ContsegError(
                        f"{path}: has the name of {self._images[name].name}; masks are found by name, so rename one"
                    )
                self._images[name] = path
        if not self._images:
            raise ContsegError(f"{images}: no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}")

    def names(self, subset: SubsetName) -> list[str]:
        listed = self.root / f"{subset}.txt"
        if listed.is_file():
            names = [
                Path(line).with_suffix("").as_posix() if Path(line).suffix.lower() in IMAGE_SUFFIXES else line
                for line in read_list(listed)
            ]
            absent = [name for name in names if name not in self._images]
            if absent:
                raise ContsegError(f"{listed}: names {len(absent)} images that are not in images/, first '{absent[0]}'")
            return names
        other = self.root / ("test.txt" if subset == "train" else "train.txt")
        if other.is_file():
            raise ContsegError(f"{listed}: list not found, though {other.name} is there; give both or none")
        folders = ("train/",) if subset == "train" else ("test/", "val/")
        if any(name.startswith("train/") for name in self._images):
            names = [name for name in self._images if name.startswith(folders)]
            if not names:
                raise ContsegError(f"{self.root / 'images'}: holds train/ but no test/ or val/; add one or a test.txt")
            return names
        return [name for name in self._images if _held_for_test(name) == (subset == "test")]

    def image_path(self, name: str) -> Path:
        return self._images[name]

    def mask_path(self, name: str) -> Path:
        return self.root / "masks" / f"{name}.png"


def _held_for_test(name: str) -> bool:
    return int(hashlib.sha1(name.encode()).hexdigest(), 16) % 5 == 0


def read_class_list(root: Path) -> ClassTable:
    """The class table of a folder from `classes.yaml`, `classes.yml` or `classes.txt`.

    Raises:
        ContsegError: none is there, or it cannot be understood.
    """
    found = [root / name for name in ("classes.yaml", "classes.yml", "classes.txt") if (root / name).is_file()]
    if not found:
        raise ContsegError(f"{root / 'classes.txt'}: not found; list the class names, one per line, background first")
    path = found[0]
    try:
        return ClassTable.of(read_list(path)) if path.suffix == ".txt" else _from_yaml(path)
    except ContsegError as error:
        message = str(error)
        raise ContsegError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def _from_yaml(path: Path) -> ClassTable:
    try:
        content = YAML(typ="safe").load(read_text(path))
    except YAMLError as error:
        raise ContsegError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if isinstance(content, dict) and set(content) == {"classes"}:
        content = content["classes"]
    if isinstance(content, dict):
        content = [{"id": number, "name": name} for number, name in content.items()]
    palette = voc_palette()
    try:
        rows = sorted(content, key=lambda row: row["id"])
        colours = [tuple(row.get("colour", palette[int(row["id"]) % 256])) for row in rows]
        if not rows or not all(len(colour) == 3 and all(0 <= value <= 255 for value in colour) for colour in colours):
            raise ValueError
        names, ids = tuple(str(row["name"]) for row in rows), tuple(int(row["id"]) for row in rows)
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ContsegError(f"{path}: expected `0: background`, `1: name`, ... or a list of id, name, colour") from None
    return ClassTable(names, ids, tuple((red, green, blue) for red, green, blue in colours))

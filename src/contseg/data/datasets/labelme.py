"""A user's data in labelme's format: one JSON file per image, whose shapes become masks of classes."""

import base64
import io
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, recorded_size, require_folder
from contseg.data.datasets.class_list import is_background
from contseg.data.datasets.division import Division
from contseg.data.files import image_size
from contseg.data.limits import max_pixels
from contseg.data.listing import IMAGE_SUFFIXES, files_below, image_files
from contseg.data.lists import read_list, read_text, without_ending
from contseg.data.outlines import draw
from contseg.errors import ContsegError, counted, did_you_mean
from contseg.parsing import parse_json

_FAR = 1e6
"""Pixels from the origin, more than any image has on a side."""
_LISTS = ("labels.txt", "classes.txt")


@dataclass(frozen=True)
class _Shape:
    """A shape that can be drawn.

    Args:
        polygon: (N, 2), corners x, y in pixels.
        pixels: (H, W) bool, drawn at the first corner instead of the polygon (a shape of type `mask`).
    """

    label: str
    polygon: np.ndarray
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class _File:
    """A JSON file: its image, the recorded (height, width) or None, and its shapes in drawing order."""

    path: Path
    image: Path
    size: tuple[int, int] | None
    shapes: list[_Shape]


class Labelme(SegmentationDataset):
    """Images with one labelme JSON file each.

    Layout of `root`:

        any/depth/01.json           its `imagePath` is relative to the file, or the name of an image in `images/`
        labels.txt, classes.txt     optional: one label per line, in the order of the classes; default: by name
        train.txt, test.txt         optional lists of names; or folders train/ and test/ (val/, valid/). With neither, about
                                    a fifth is held out by the hash of the name.

    A sample's name is its image's path in `root`, or in `images/`, without suffix. Images without a JSON file are not used.

    Polygons, rectangles, circles and masks are drawn in the order of the file, later ones over earlier ones; a pixel belongs
    to a shape if its centre is in it. Lines and points have no area, so they are left out and listed. Class ids are 1, 2, 3,
    ...; 0 marks pixels without a label and shapes named like a background (`_background_`), 255 shapes labelled
    `__ignore__`. `group_id`, `flags` and `imageData` are not used.

    Raises:
        ContsegError: the folder is missing or has no file of labelme, or a file is invalid, has an unlisted label, or names
            an image that is not there.

    Source: https://github.com/wkentaro/labelme
    """

    name = "labelme"

    def __init__(self, root: Path | str):
        self.root = require_folder(Path(root), "a folder of images and labelme's JSON files")
        self._folder = self.root / "images" if (self.root / "images").is_dir() else self.root
        left_out: list[tuple[Path, str]] = []
        self._files: dict[str, _File] = {}
        for path in files_below(self.root):
            if path.suffix.lower() == ".json":
                self._add(path, left_out)
        if not self._files:
            raise ContsegError(f"{self.root}: no JSON file of labelme found; each image needs one, with 'shapes'")
        labels = {shape.label for file in self._files.values() for shape in file.shapes}
        names = self._class_names(labels)
        for file in self._files.values():
            for shape in file.shapes:
                if shape.label not in names and not is_background(shape.label):
                    raise ContsegError(
                        f"{file.path}: label '{shape.label}' is not in the class list; add it, or correct the label;"
                        f" {did_you_mean(shape.label, names)}"
                    )
        self.classes = ClassTable.of(["background", *names], "unlabelled")
        self._id_of = dict(zip(self.classes.names[1:], self.classes.ids[1:], strict=True))
        self._division = Division(self._files, self.root, self._folder)
        self.is_divided = self._division.is_divided
        self.left_out = tuple(left_out)
        self.notes = tuple(self._notes())

    def _add(self, path: Path, left_out: list[tuple[Path, str]]) -> None:
        content = parse_json(read_text(path), str(path))
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            left_out.append((path, "is no file of labelme: 'shapes' is missing"))
            return
        image = self._image_of(path, content.get("imagePath"))
        height, width = content.get("imageHeight"), content.get("imageWidth")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        shapes = []
        for position, row in enumerate(content["shapes"], 1):
            try:
                shapes.append(_shape(row))
            except ValueError as error:
                left_out.append((path, f"shape {position}: {error}"))
        base = self._folder if self._folder in image.parents else self.root
        relative = image.relative_to(base) if base in image.parents else path.relative_to(self.root)
        name = unicodedata.normalize("NFC", without_ending(relative.as_posix()).removesuffix(".json"))
        if name in self._files:
            raise ContsegError(f"{path}: labels the image {relative}, and so does {self._files[name].path}; remove one")
        self._files[name] = _File(path, image, size, shapes)

    def _image_of(self, path: Path, written: Any) -> Path:
        """The image of a JSON file: as written, or one of the same name next to the file or in `images/`."""
        turned = written.replace("\\", "/") if isinstance(written, str) else ""
        stems = [path.with_suffix(suffix).name for suffix in IMAGE_SUFFIXES]
        last = turned.rsplit("/", 1)[-1]
        choices = [path.parent / turned, *(folder / last for folder in (path.parent, self._folder))] if last else []
        choices += [folder / name for folder in (path.parent, self._folder) for name in stems]
        for choice in choices:
            if os.path.isfile(choice):
                return Path(os.path.normpath(choice))
        raise ContsegError(f"{path}: its image '{turned or stems[0]}' is not there; copy it next to the file")

    def _class_names(self, labels: set[str]) -> list[str]:
        """The classes in their order: of the class list, or by name."""
        path = next((self.root / name for name in _LISTS if (self.root / name).is_file()), None)
        names = read_list(path) if path else sorted(labels)
        return [name for name in dict.fromkeys(names) if not is_background(name)]

    def _notes(self) -> Iterator[str]:
        used = {file.image for file in self._files.values()}
        if unused := [path for path in image_files(self.root) if path not in used]:
            example = unused[0].relative_to(self.root)
            yield f"{counted(len(unused), 'image')} without a JSON file: not used, such as {example}"
        if self.left_out:
            path, text = self.left_out[0]
            yield (
                f"{counted(len(self.left_out), 'row')} left out, such as {path.relative_to(self.root)}: {text};"
                " `contseg data check` lists them"
            )

    def names(self, subset: SubsetName) -> list[str]:
        return self._division.names(subset)

    def image_path(self, name: str) -> Path:
        return self._files[name].image

    def mask_path(self, name: str) -> Path:
        return self._files[name].path

    def read_mask(self, name: str) -> np.ndarray:
        """Mask (H, W) of ids, uint8 or uint16.

        Raises:
            ContsegError: the image is missing or of another size than recorded.
        """
        file = self._files[name]
        size = image_size(file.image)
        if file.size is not None and file.size != size:
            raise ContsegError(f"{file.path}: {recorded_size(file.size, size, file.image)}")
        mask = np.zeros(size, dtype=np.uint8 if len(self.classes) <= IGNORE else np.uint16)
        for shape in file.shapes:
            value = self._id_of.get(shape.label, IGNORE if "ignore" in shape.label.casefold() else 0)
            if shape.pixels is None:
                draw(mask, shape.polygon, value)
            else:
                left, top = shape.polygon[0].astype(int)
                part = mask[top : top + shape.pixels.shape[0], left : left + shape.pixels.shape[1]]
                part[shape.pixels[: part.shape[0], : part.shape[1]]] = value
        return mask


def _shape(row: Any) -> _Shape:
    """One entry of `shapes`.

    Raises:
        ValueError: it has no area, or is broken; the message has the reason.
    """
    if not isinstance(row, dict) or not isinstance(row.get("label"), str) or not row["label"].strip():
        raise ValueError("has no label")
    label, kind = row["label"].strip(), row.get("shape_type") or "polygon"
    try:
        points = np.array(row.get("points"), dtype=float).reshape(-1, 2)
    except (TypeError, ValueError):
        raise ValueError(f"'{label}' has points that are not pairs of numbers") from None
    if not (np.abs(points) < _FAR).all():  # also not NaN
        raise ValueError(f"'{label}' has points that are not finite, or far out of any image")
    if kind in ("line", "linestrip", "point", "points"):
        raise ValueError(f"'{label}' is a {kind}, which has no area")
    if kind in ("rectangle", "circle", "mask") and len(points) != 2:
        raise ValueError(f"'{label}' is a {kind} of {len(points)} points instead of 2")
    if len(points) < 3 and kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"'{label}' has fewer than three points")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        turn = np.linspace(0, 2 * np.pi, min(100_000, max(32, int(4 * radius))), endpoint=False)
        points = points[0] + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    elif kind == "mask":
        return _Shape(label, points.clip(min=0), _pixels(row.get("mask"), label))
    return _Shape(label, points)


def _pixels(text: Any, label: str) -> np.ndarray:
    """The pixels of a shape of type `mask`, a PNG in base64: (h, w) bool."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            if image.width * image.height > max_pixels():
                raise ValueError("too large")
            return np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"'{label}' has a mask that is no PNG in base64 ({error})") from None

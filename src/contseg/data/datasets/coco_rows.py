"""Read the rows of one COCO file: usable ones, and skipped ones with the reason."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from contseg.data.datasets.class_list import is_background
from contseg.data.lists import read_text
from contseg.errors import ContsegError
from contseg.parsing import parse_json


@dataclass
class Image:
    """One image of a JSON file, with its annotations: (annotation, class name, segmentation).

    Args:
        height, width: as recorded in the file, or None.
    """

    json: Path
    path: Path
    height: int | None
    width: int | None
    objects: list[tuple[str, str, Any]] = field(default_factory=list)


@dataclass
class CocoFile:
    """The usable rows of a file.

    Attributes:
        path: the file.
        names: class by category id, in the order of the ids, after renaming, without dropped categories and background.
        images: by their id, in the order of the file.
        listed: names of all categories in the file, before renaming.
        used: classes with at least one object.
        left_out: skipped rows, each with the reason.
        rows: annotations in the file.
    """

    path: Path
    names: dict[int, str]
    images: dict[int | str, Image]
    listed: frozenset[str]
    used: frozenset[str]
    left_out: list[str]
    rows: int


def read_coco(
    path: Path, folder: Path, drop: frozenset[str] = frozenset(), rename: Mapping[str, str] | None = None
) -> CocoFile:
    """Read a file in COCO's format.

    Annotations are skipped if they have no shape (missing, empty, a box, fewer than three points), if their image or
    category is not listed, or if their category is dropped. Categories with the same name are one class. A category with
    the name of a background is the background. Unused categories that only group others (the `supercategory` of another,
    or id 0, as Roboflow writes it) or that repeat a name are skipped.

    Args:
        folder: folder of the images.
        drop: names (after renaming) of categories to leave out, with their objects.
        rename: new names of categories.

    Raises:
        ContsegError: the file is not COCO JSON, lacks a list, or has an invalid row.
    """
    content = _read_json(path)
    left_out: list[str] = []
    categories = _categories(content, path, rename or {})
    images = _images(content, path, folder)
    dropped = {number for number, name in categories.items() if name in drop}
    background = {number for number, name in categories.items() if is_background(name)}
    objects = 0
    used_ids: set[int] = set()
    for position, row in enumerate(content["annotations"], 1):
        label = _label("annotation", row, position)
        image, category = _whole(row.get("image_id")), _whole(row.get("category_id"))
        shape, flaw = _shape(row.get("segmentation"))
        if not isinstance(image, int | str) or image not in images:
            left_out.append(f"{label}: belongs to image {str(image)[:40]}, which 'images' does not list")
        elif not isinstance(category, int) or category not in categories:
            left_out.append(f"{label}: has category {str(category)[:40]}, which 'categories' does not list")
        elif category in dropped:
            left_out.append(f"{label}: has category '{categories[category]}', which is dropped")
            continue
        elif shape is None:
            left_out.append(f"{label}: {flaw}")
        else:
            if flaw:
                left_out.append(f"{label}: {flaw}")
            used_ids.add(category)
            images[image].objects.append((label, categories[category], shape))
            objects += 1
    rows = len(content["annotations"])
    if rows and not objects and not dropped:
        raise ContsegError(f"{path}: none of its {rows} annotations can be used; the first: {left_out[0]}")
    parents = {str(row.get("supercategory")) for row in content["categories"]}
    names: dict[int, str] = {}
    for number, name in categories.items():
        if number in dropped:
            left_out.append(f"category {number}: '{name}' is dropped")
        elif number in background:
            left_out.append(f"category {number}: '{name}' is the background, not a class")
        elif number not in used_ids and (number == 0 or name in parents) and len(categories) > 1:
            left_out.append(f"category {number}: '{name}' has no object and only groups other categories")
        else:
            names[number] = name
    for number in list(names):
        twins = [one for one, name in names.items() if name == names[number]]
        if number != twins[0]:
            left_out.append(f"category {number}: has the name of category {twins[0]}, '{names[number]}'; they are one class")
            del names[number]
    listed = frozenset(row["name"] for row in content["categories"])
    used = frozenset(categories[number] for number in used_ids - background)
    return CocoFile(path, names, images, listed, used, left_out, rows)


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a COCO file, with its three lists."""
    content = parse_json(read_text(path), str(path))
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ContsegError(f"{path}: '{key}' is missing or no list of objects; is it COCO's instances format?")
    return content


def _whole(value: Any) -> Any:
    """Floats that are whole numbers (64.0) as integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _get(row: dict[str, Any], key: str, kind: type, path: Path, label: str) -> Any:
    """A value of a row.

    Raises:
        ContsegError: the value is missing or of another type; the message has the row.
    """
    value = _whole(row.get(key))
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "is missing" if key not in row else f"is {str(value)[:40]!r}, expected {kind.__name__}"
        raise ContsegError(f"{path}: {label}: '{key}' {what}")
    return value


def _label(kind: str, row: dict[str, Any], position: int) -> str:
    return f"{kind} {str(row['id'])[:40]}" if "id" in row else f"{kind} number {position} of the list"


def _categories(content: dict[str, Any], path: Path, rename: Mapping[str, str]) -> dict[int, str]:
    """Names by category id, in the order of the ids."""
    names: dict[int, str] = {}
    for position, row in enumerate(content["categories"], 1):
        label = _label("category", row, position)
        number, name = _get(row, "id", int, path, label), _get(row, "name", str, path, label)
        if number in names:
            raise ContsegError(f"{path}: {label}: this id occurs twice")
        names[number] = rename.get(name, name)
    if not names:
        raise ContsegError(f"{path}: 'categories' is empty")
    return dict(sorted(names.items()))


def _images(content: dict[str, Any], path: Path, folder: Path) -> dict[int | str, Image]:
    """The images of the file by their id."""
    images: dict[int | str, Image] = {}
    for position, row in enumerate(content["images"], 1):
        label = _label("image", row, position)
        number = _whole(row.get("id"))
        if not isinstance(number, int | str):
            raise ContsegError(f"{path}: {label}: 'id' is missing or not a number")
        if number in images:
            raise ContsegError(f"{path}: {label}: this id occurs twice")
        file = _get(row, "file_name", str, path, label)
        height, width = (_get(row, key, int, path, label) if key in row else None for key in ("height", "width"))
        if any(side is not None and side < 1 for side in (height, width)):
            raise ContsegError(f"{path}: {label}: is {width}x{height} pixels")
        try:
            images[number] = Image(path, _existing(folder, file), height, width)
        except ValueError:
            raise ContsegError(f"{path}: {label}: file_name {file[:80]!r} is no path in {folder}; correct it") from None
    return images


def _existing(folder: Path, file: str) -> Path:
    """The image of a `file_name` in a folder; it may be written as a path or an address on another machine.

    Tried are the name as written, with `/` for `\\` and without %-codes, its last parts, and its last part without the
    eight digits that Label Studio puts in front. Names that lead out of the folder are never tried.

    Raises:
        ValueError: the name is no path in the folder.
    """
    turned = file.replace("\\", "/")
    plain = unquote(turned).rpartition("?d=")[2]
    parts = plain.split("/")
    last_parts = ["/".join(parts[start:]) for start in range(len(parts))]
    for choice in dict.fromkeys((file, turned, *last_parts, re.sub("^[0-9a-f]{8}-", "", parts[-1]))):
        if _is_within(choice) and os.path.isfile(folder / choice):
            return folder / choice
    if not _is_within(turned):
        raise ValueError
    return folder / turned


def _is_within(name: str) -> bool:
    """Whether a name is a relative path that never leaves its folder, and that a file can have."""
    os.fsencode(name)  # raises UnicodeEncodeError, a ValueError
    path = os.path.normpath(name)
    return bool(name) and "\0" not in name and path not in (".", "..") and not path.startswith(("/", "../"))


def _shape(segmentation: Any) -> tuple[Any, str]:
    """The part of a segmentation that can be drawn (or None), and a text on what is skipped."""
    if segmentation is None:
        return None, "has no segmentation (a box is not a mask)"
    if segmentation in ([], {}, ""):
        return None, "its segmentation is empty"
    if not isinstance(segmentation, list):
        return segmentation, ""
    kept = [one for one in segmentation if not (isinstance(one, list) and len(one) < 6 and len(one) % 2 == 0)]
    lost = len(segmentation) - len(kept)
    return (kept or None), f"{lost} of its {len(segmentation)} polygons have fewer than three points" if lost else ""

"""The rows of one COCO file: what can be used, and what is left out and why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contseg.data.datasets.class_list import is_background
from contseg.data.lists import read_text
from contseg.errors import ContsegError


@dataclass
class Image:
    """One image of a JSON file, and what is annotated in it: (annotation, class name, segmentation).

    Args:
        height, width: as recorded; None where they are not.
    """

    json: Path
    path: Path
    height: int | None
    width: int | None
    objects: list[tuple[str, str, Any]] = field(default_factory=list)


@dataclass
class CocoFile:
    """The rows of a file that can be used.

    Attributes:
        path: the file.
        names: class by category id, in the order of the ids, after dropping and renaming; background and what is dropped are
            not among them.
        images: by their id, in the order of the file.
        listed: names of all categories as they stand there.
        used: classes with at least one object.
        left_out: what each row that is not used is, and why.
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
    """Read a file of COCO's format.

    Annotations without a shape (none, empty, boxes, fewer than three points), of images or categories that are not listed,
    and of dropped categories are left out. Categories of one name are one class. A category that has the name of a
    background is the background. One that is nowhere used and only groups others (the `supercategory` of another, or of
    id 0, as Roboflow writes it), or has the name of another, is left out.

    Args:
        folder: of the images.
        drop: names of categories that are left out with all their objects, after renaming.
        rename: new names of categories.

    Raises:
        ContsegError: the file is none, lacks a list, or has a row that no reading makes sense of.
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
            left_out.append(f"{label}: is of image {image}, which 'images' does not list")
        elif not isinstance(category, int) or category not in categories:
            left_out.append(f"{label}: has category {category}, which 'categories' does not list")
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
    parents = {row.get("supercategory") for row in content["categories"]}
    names: dict[int, str] = {}
    for number, name in categories.items():
        if number in dropped:
            left_out.append(f"category {number}: '{name}' is dropped")
        elif number in background:
            left_out.append(f"category {number}: '{name}' is no class but the background")
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
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ContsegError(f"{path}: not JSON ({error})") from None
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ContsegError(f"{path}: '{key}' is missing or no list of objects; is it COCO's instances format?")
    return content


def _whole(value: Any) -> Any:
    """Whole numbers that a tool wrote as 64.0 as what they are."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _get(row: dict[str, Any], key: str, kind: type, path: Path, label: str) -> Any:
    """A value of a row of the file; wrong or missing ones are told with the row."""
    value = _whole(row.get(key))
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "is missing" if key not in row else f"is {str(value)[:40]!r}, expected {kind.__name__}"
        raise ContsegError(f"{path}: {label}: '{key}' {what}")
    return value


def _label(kind: str, row: dict[str, Any], position: int) -> str:
    return f"{kind} {row['id']}" if "id" in row else f"{kind} number {position} of the list"


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
            raise ContsegError(f"{path}: {label}: 'id' is missing or no number")
        if number in images:
            raise ContsegError(f"{path}: {label}: this id occurs twice")
        file = _get(row, "file_name", str, path, label)
        height, width = (_get(row, key, int, path, label) if key in row else None for key in ("height", "width"))
        if any(side is not None and side < 1 for side in (height, width)):
            raise ContsegError(f"{path}: {label}: is {width}x{height} pixels")
        images[number] = Image(path, _existing(folder, file), height, width)
    return images


def _existing(folder: Path, file: str) -> Path:
    """The image of a `file_name`: as it stands, with the slashes of Windows turned, or by its last part alone."""
    turned = file.replace("\\", "/")
    for choice in dict.fromkeys((file, turned, turned.rsplit("/", 1)[-1])):
        if (folder / choice).is_file():
            return folder / choice
    return folder / turned


def _shape(segmentation: Any) -> tuple[Any, str]:
    """What of a segmentation can be drawn (None: nothing), and what is left out of it."""
    if segmentation is None:
        return None, "has no segmentation (a box is no mask)"
    if segmentation in ([], {}, ""):
        return None, "its segmentation is empty"
    if not isinstance(segmentation, list):
        return segmentation, ""
    kept = [one for one in segmentation if not (isinstance(one, list) and len(one) < 6 and len(one) % 2 == 0)]
    lost = len(segmentation) - len(kept)
    return (kept or None), f"{lost} of its {len(segmentation)} polygons have fewer than three points" if lost else ""

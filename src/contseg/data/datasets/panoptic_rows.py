"""Read the segments of a panoptic JSON file, in COCO's format: which class each id in a panoptic PNG has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from contseg.data.classes import ClassTable
from contseg.data.lists import read_text
from contseg.data.segments import CROWD
from contseg.errors import ContsegError, counted
from contseg.parsing import parse_json

BEYOND = 1 << 24
"""Ids have 24 bits."""

ClassOf = Callable[[set[int], Path], Mapping[int, int]]
"""From the category ids of a file, and its path for an error, to the class id of each."""


@dataclass(frozen=True)
class Segments:
    """The segments of one image, S of them, in the order of their ids.

    Args:
        ids: (S,) uint32, 1 or more.
        classes: (S,) uint16, class ids of the dataset.
        crowd: (S,) bool.
        areas: (S,) int64, recorded pixels; -1 where the file has none.
    """

    ids: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class PanopticFile:
    """A panoptic JSON file.

    Args:
        path: the file.
        images: file name of the image, by sample name, in the order of the file.
        masks: file name of the PNG, by sample name.
        places: where the segments of a sample begin and end in `rows`.
        rows: the segments of all samples, one after another.
    """

    path: Path
    images: dict[str, str]
    masks: dict[str, str]
    places: dict[str, tuple[int, int]] = field(repr=False)
    rows: Segments = field(repr=False)

    def segments(self, name: str) -> Segments:
        """The segments of a sample."""
        start, end = self.places[name]
        rows = self.rows
        return Segments(rows.ids[start:end], rows.classes[start:end], rows.crowd[start:end], rows.areas[start:end])


def read_panoptic(path: Path, classes: ClassTable, class_of: ClassOf) -> PanopticFile:
    """Read a file. The name of a sample is that of its PNG, without the ending.

    Args:
        classes: the table of the dataset.
        class_of: see `ClassOf`.

    Raises:
        ContsegError: the file is missing or no panoptic JSON, its categories are not those of the table, or a row is broken:
            an image or category that is not listed, an id that is repeated or beyond 24 bits.
    """
    content = _read(path)
    class_by_category = _classes(content, path, classes, class_of)
    pictures: dict[int | str, str] = {}
    annotated: dict[int | str, str] = {}
    for position, row in enumerate(content["images"], 1):
        number, file = row.get("id"), row.get("file_name")
        if not isinstance(number, int | str) or not isinstance(file, str):
            raise ContsegError(f"{path}: image {position} of the list has no id or no file_name; add it")
        if number in pictures:
            raise ContsegError(
                f"{path}: image {str(number)[:40]} is listed twice ({pictures[number][:80]}, {file[:80]}); give each image"
                " its own id"
            )
        pictures[number] = file
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    places: dict[str, tuple[int, int]] = {}
    columns: list[np.ndarray] = []
    done = 0
    for position, row in enumerate(content["annotations"], 1):
        file, number = row.get("file_name"), row.get("image_id")
        if not isinstance(file, str) or not _is_name(file):
            raise ContsegError(f"{path}: annotation {position} of the list: {str(file)[:80]!r} is not the name of a PNG")
        if not isinstance(number, int | str) or number not in pictures:
            raise ContsegError(f"{path}: {file}: belongs to image {str(number)[:40]}, which 'images' does not list")
        name = file.rpartition(".")[0]
        if name in masks:
            raise ContsegError(f"{path}: {file}: is annotated twice; remove one")
        if number in annotated:
            raise ContsegError(
                f"{path}: image {str(number)[:40]} is annotated twice ({annotated[number]}, {file}); remove one"
            )
        annotated[number] = file
        if not _is_name(pictures[number]):
            raise ContsegError(f"{path}: image {number}: file_name {pictures[number][:80]!r} is not the name of a file")
        images[name], masks[name] = pictures[number], file
        own = _segments(row.get("segments_info"), class_by_category, f"{path}: {file}")
        places[name] = done, done + own.shape[1]
        done += own.shape[1]
        columns.append(own)
    ids, kinds, crowd, areas = np.concatenate(columns, axis=1) if columns else np.zeros((4, 0), dtype=np.int64)
    rows = Segments(ids.astype(np.uint32), kinds.astype(np.uint16), crowd.astype(bool), areas)
    return PanopticFile(path, images, masks, places, rows)


def _read(path: Path) -> dict[str, Any]:
    """The content of a file, with its three lists."""
    if not path.is_file():
        raise ContsegError(f"{path}: not found; the segments of panoptic PNGs are listed there")
    content = parse_json(read_text(path), str(path))
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ContsegError(f"{path}: '{key}' is missing or no list of objects; is it COCO's panoptic format?")
    return content


def _classes(content: dict[str, Any], path: Path, classes: ClassTable, class_of: ClassOf) -> Mapping[int, int]:
    """The class id of every category, after a comparison with the table."""
    listed: dict[int, dict[str, Any]] = {}
    for row in content["categories"]:
        number = row.get("id")
        if not isinstance(number, int) or isinstance(number, bool):
            raise ContsegError(f"{path}: category {str(row.get('name'))[:40]!r} has id {str(number)[:40]}; ids are numbers")
        if number in listed:
            raise ContsegError(f"{path}: category {number} is listed twice; give each category its own id")
        listed[number] = row
    found = class_of(set(listed), path)
    for number, row in listed.items():
        if found.get(number) not in classes.foreground:
            raise ContsegError(
                f"{path}: category {number} ({str(row.get('name'))[:40]}) is no class of this dataset; use its own file"
            )
        thing = found[number] in classes.things
        if "isthing" in row and bool(row["isthing"]) != thing:
            name = classes.names[classes.ids.index(found[number])]
            raise ContsegError(
                f"{path}: category {number} is {'a thing' if row['isthing'] else 'stuff'}, but class {found[number]}"
                f" ({name}) is {'a thing' if thing else 'stuff'}; is it a file of another dataset?"
            )
    return found


def _segments(rows: Any, class_of: Mapping[int, int], where: str) -> np.ndarray:
    """The segments of an image in the order of their ids: (4, S) int64, rows as of `Segments`."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ContsegError(f"{where}: 'segments_info' is missing or no list of objects; is it COCO's panoptic format?")
    found = np.empty((4, len(rows)), dtype=np.int64)
    for place, row in enumerate(rows):
        number, category, area = row.get("id"), row.get("category_id"), row.get("area", -1)
        if type(number) is not int or not 0 < number < BEYOND:
            raise ContsegError(f"{where}: segment id {str(number)[:40]}: ids are 1 to {BEYOND - 1}, R + 256 G + 65536 B")
        if type(category) is not int or category not in class_of:
            raise ContsegError(f"{where}: segment {number}: category {str(category)[:40]} is not in 'categories'")
        if row.get("iscrowd", 0) not in (0, 1):
            raise ContsegError(f"{where}: segment {number}: iscrowd is {str(row['iscrowd'])[:40]!r}; set it to 0 or 1")
        recorded = int(area) if isinstance(area, int | float) and 0 <= area < 1 << 53 else -1
        found[:, place] = number, class_of[category], row.get("iscrowd", 0), recorded
    found = found[:, np.argsort(found[0], kind="stable")]
    repeated = found[0, 1:][found[0, 1:] == found[0, :-1]]
    if len(repeated):
        raise ContsegError(
            f"{where}: lists segment {repeated[0]} more than once, so that segments overlap; give each its own id"
        )
    return found


def _is_name(file: str) -> bool:
    """Whether a text is the name of a file in a folder."""
    return file == PurePosixPath(file).name and "\\" not in file and "\0" not in file and file not in ("", ".", "..")


def read_as(ids: np.ndarray, segments: Segments, things: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The class ids and the numbers of objects of a panoptic PNG: (H, W) uint8 or uint16, and (H, W) uint16.

    Things are numbered from 1 in the order of their ids; crowds and stuff as of `SegmentationDataset.read_labels`.

    Args:
        ids: (H, W) uint32; 0 is not annotated.
        things: class ids that are things.

    Raises:
        ContsegError: the PNG has an id that is not listed, or there are more objects than numbers.

    Example:
        >>> listed = Segments(np.array([7, 300]), np.array([2, 5]), np.array([False, False]), np.array([2, 1]))
        >>> read_as(np.array([[0, 7, 7, 300]]), listed, np.array([5]), Path("a.png"))
        (array([[0, 2, 2, 5]], dtype=uint8), array([[0, 0, 0, 1]], dtype=uint16))
    """
    flat = ids.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])) if flat.size else np.zeros(0, dtype=int)
    values, lengths = flat[starts], np.diff(starts, append=flat.size)
    known = np.concatenate([[0], segments.ids])
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    strange = known[place] != values
    if strange.any():
        names, where = np.unique(values[strange], return_inverse=True)
        pixels = np.bincount(where, weights=lengths[strange]).astype(int)
        rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
        listed = ", ".join(
            f"{number} ({counted(int(count), 'pixel')})" for number, count in zip(names[:3], pixels[:3], strict=True)
        )
        raise ContsegError(
            f"{path}: unknown segment ids: {listed}{rest}; list each in 'segments_info', or write 0 for not annotated"
        )
    objects = np.isin(segments.classes, things) & ~segments.crowd
    if objects.sum() >= CROWD:
        raise ContsegError(f"{path}: {objects.sum()} objects; an image may have {CROWD - 1}")
    numbers = np.where(segments.crowd, CROWD, np.where(objects, np.cumsum(objects), 0))
    small = not len(segments.classes) or segments.classes.max() < 256
    kinds = np.concatenate([[0], segments.classes]).astype(np.uint8 if small else np.uint16)
    numbers = np.concatenate([[0], numbers]).astype(np.uint16)
    return tuple(np.repeat(table[place], lengths).reshape(ids.shape) for table in (kinds, numbers))  # type: ignore[return-value]


def overlaps(ids: np.ndarray, segments: Segments) -> list[str]:
    """Segments of which the PNG shows fewer pixels than recorded, as another one was drawn over them; one line each."""
    found, pixels = np.unique(ids, return_counts=True)
    shown = np.zeros(len(segments.ids), dtype=np.int64)
    place = np.searchsorted(found, segments.ids)
    there = place < len(found)
    there[there] = found[place[there]] == segments.ids[there]
    shown[there] = pixels[place[there]]
    lines = []
    for number, seen, area in zip(segments.ids.tolist(), shown.tolist(), segments.areas.tolist(), strict=True):
        if not seen:
            lines.append(f"segment {number} is listed but has no pixel; segments overlap, or the PNG is of another image")
        elif seen < area:
            lines.append(f"segment {number} records {counted(area, 'pixel')} and shows {seen}; segments overlap")
    return lines

"""Masks as annotation tools read them: COCO's JSON, labelme's JSON, CVAT's "Segmentation mask 1.1".

Every connected region of a class is one object. Outlines follow the edges of pixels, so that `open_labelled` reads the same
masks again.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from contseg.data.classes import ClassTable, Colour, voc_palette
from contseg.data.outlines import Region, draw, fill, regions


def coco_content(images: Iterable[tuple[str, np.ndarray]], classes: ClassTable) -> dict[str, Any]:
    """The content of a file in COCO's instances format.

    Regions without a hole are polygons, others are uncompressed run lengths. Background and unlisted ids have no object.

    Args:
        images: file name, and mask (H, W) of class ids, of each image.
        classes: the table of the ids.

    Example:
        >>> mask = np.array([[0, 1, 1], [0, 1, 1]], dtype=np.uint8)
        >>> content = coco_content([("a.jpg", mask)], ClassTable.of(["background", "boat"]))
        >>> content["annotations"][0]["segmentation"], content["annotations"][0]["area"], content["categories"][0]["name"]
        ([[1, 0, 3, 0, 3, 2, 1, 2]], 4, 'boat')
    """
    names = _named(classes)
    up = int(0 in names)  # several tools take category 0 for a group of categories
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number + up, "name": name, "supercategory": ""} for number, name in names.items()],
    }
    for file, mask in images:
        height, width = mask.shape
        number = len(content["images"]) + 1
        content["images"].append({"id": number, "file_name": file, "height": height, "width": width})
        for region in regions(mask):
            if region.value in names:
                polygon = [region.outline.ravel().tolist()]
                low, high = region.outline.min(axis=0).tolist(), region.outline.max(axis=0).tolist()
                content["annotations"].append({
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": region.value + up,
                    "segmentation": _run_lengths(region, height, width) if region.holes else polygon,
                    "area": region.pixels,
                    "bbox": [*low, high[0] - low[0], high[1] - low[1]],
                    "iscrowd": 0,
                })  # fmt: skip
    return content


def labelme_content(file: str, mask: np.ndarray, classes: ClassTable) -> dict[str, Any]:
    """The content of labelme's JSON for an image.

    Polygons have no holes, so a region is drawn over the one that encloses it: as its class, as `_background_`, or as
    `__ignore__` where the id is not listed.

    Args:
        file: path of the image, relative to the JSON.
        mask: (H, W) of class ids.
        classes: the table of the ids.

    Example:
        >>> ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=np.uint8)
        >>> shapes = labelme_content("a.jpg", ring, ClassTable.of(["background", "boat"]))["shapes"]
        >>> [(shape["label"], shape["points"][0]) for shape in shapes]
        [('boat', [0, 0]), ('_background_', [1, 1])]
    """
    names = _named(classes)
    nothing = 0 if 0 not in names else -1
    known = {**names, nothing: "_background_"}
    drawn = np.full(mask.shape, nothing)
    shapes = []
    for region in regions(mask):
        left, top = region.outline[0]
        if drawn[top, left] != region.value:  # the first corner is the upper left one of a pixel of the region
            draw(drawn, region.outline, region.value)
            shapes.append({
                "label": known.get(region.value, "__ignore__"),
                "points": region.outline.tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            })  # fmt: skip
    height, width = mask.shape
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": str(PurePosixPath(file)),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def cvat_colours(classes: ClassTable) -> dict[int, Colour]:
    """The colour of every class id in CVAT's masks; no two are equal, and none is the background's black.

    Example:
        >>> cvat_colours(ClassTable.of(["background", "boat"]))
        {1: (128, 0, 0)}
    """
    colours: dict[int, Colour] = {}
    used = {(0, 0, 0)}
    own = dict(zip(classes.ids, classes.colours, strict=True))
    spare = iter([colour for colour in voc_palette(2 * len(classes) + 1) if colour not in {*classes.colours, (0, 0, 0)}])
    for number in _named(classes):
        colours[number] = own[number] if own[number] not in used else next(spare)
        used.add(colours[number])
    return colours


def cvat_labelmap(classes: ClassTable) -> str:
    """The content of `labelmap.txt`.

    Example:
        >>> print(cvat_labelmap(ClassTable.of(["background", "boat"])), end="")
        # label:color_rgb:parts:actions
        background:0,0,0::
        boat:128,0,0::
    """
    colours = cvat_colours(classes)
    rows = [("background", (0, 0, 0)), *((name, colours[number]) for number, name in _named(classes).items())]
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in rows]
    return "\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n"


def cvat_mask(mask: np.ndarray, classes: ClassTable) -> np.ndarray:
    """The mask (H, W) in the colours of `cvat_labelmap`: (H, W, 3) uint8; unlisted ids are background.

    Example:
        >>> cvat_mask(np.array([[0, 1, 255]]), ClassTable.of(["background", "boat"])).tolist()
        [[[0, 0, 0], [128, 0, 0], [0, 0, 0]]]
    """
    table = np.zeros((65536, 3), dtype=np.uint8)
    for number, colour in cvat_colours(classes).items():
        table[number] = colour
    return table[mask]


def _named(classes: ClassTable) -> dict[int, str]:
    """The names of all classes but background, by id."""
    return {number: name for number, name in zip(classes.ids, classes.names, strict=True) if number in classes.foreground}


def _run_lengths(region: Region, height: int, width: int) -> dict[str, Any]:
    """COCO's uncompressed run lengths, column by column, starting outside the region."""
    low, high = region.outline.min(axis=0), region.outline.max(axis=0)
    columns, rows = high - low
    pixels = fill([part - low for part in (region.outline, *region.holes)], rows, columns)
    column, row = np.nonzero(np.diff(np.pad(pixels, ((1, 1), (0, 0))).T))
    changes = (column + low[0]) * height + row + low[1]
    return {"size": [height, width], "counts": np.diff(changes, prepend=0, append=height * width).tolist()}

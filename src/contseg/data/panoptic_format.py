"""Segments in COCO's panoptic format: PNGs of ids R + 256 G + 65536 B, and a JSON file with the class of each id."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from contseg.data.classes import ClassTable


def panoptic_png(ids_HW: np.ndarray) -> np.ndarray:
    """The ids of a panoptic PNG: 1 for the first segment, 0 for none: (H, W) uint32, for `write_segment_ids`.

    Args:
        ids_HW: integers, the place of a pixel's segment in a list of segments; below 0 for none.

    Example:
        >>> panoptic_png(np.array([[-1, 0, 1]]))
        array([[0, 1, 2]], dtype=uint32)
    """
    return np.where(ids_HW < 0, 0, ids_HW + 1).astype(np.uint32)


def segment_rows(ids_HW: np.ndarray, classes: Sequence[int], table: ClassTable) -> list[dict[str, Any]]:
    """`segments_info` of an image, for the ids of `panoptic_png`. A segment without a pixel is left out.

    Args:
        ids_HW: as of `panoptic_png`.
        classes: the class of each segment, as a position in the table.
        table: gives the category of a class: its id.

    Example:
        >>> table = ClassTable.of(["background", "sky", "cat"])
        >>> segment_rows(np.array([[1, 0], [1, -1]]), [1, 2], table)[1]
        {'id': 2, 'category_id': 2, 'area': 2, 'bbox': [0, 0, 1, 2], 'iscrowd': 0}
    """
    rows, columns = np.nonzero(ids_HW >= 0)
    places = ids_HW[rows, columns]
    count = len(classes)
    pixels = np.bincount(places, minlength=count)
    low, high = np.full((2, count), max(ids_HW.shape, default=0)), np.full((2, count), -1)
    for axis, found in enumerate((columns, rows)):
        np.minimum.at(low[axis], places, found)
        np.maximum.at(high[axis], places, found)
    return [
        {
            "id": place + 1,
            "category_id": table.ids[classes[place]],
            "area": int(pixels[place]),
            "bbox": [*low[:, place].tolist(), *(high - low + 1)[:, place].tolist()],
            "iscrowd": 0,
        }
        for place in np.flatnonzero(pixels).tolist()
    ]


def panoptic_categories(table: ClassTable) -> list[dict[str, Any]]:
    """`categories`: all classes but background.

    Example:
        >>> panoptic_categories(ClassTable(("sky", "cat"), (3, 5), ((9, 9, 9), (0, 0, 9)), "none", things=(5,)))[1]
        {'id': 5, 'name': 'cat', 'supercategory': '', 'isthing': 1, 'color': [0, 0, 9]}
    """
    return [
        {
            "id": number,
            "name": name,
            "supercategory": "",
            "isthing": int(number in table.things),
            "color": list(colour),
        }
        for number, name, colour in zip(table.ids, table.names, table.colours, strict=True)
        if number in table.foreground
    ]

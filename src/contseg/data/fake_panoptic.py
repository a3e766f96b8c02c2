"""Synthetic copies of datasets in COCO's panoptic format: PNGs of segments, and the JSON file that lists them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contseg.data.dataset import SubsetName
from contseg.data.datasets.panoptic import ADE20KPanoptic, PanopticDataset
from contseg.data.files import write_segment_ids

CROWDED = 4
"""In one of so many images of COCO the last shape, if it is a thing, is a crowd."""


def save_segments(
    dataset: type[PanopticDataset],
    places: tuple[Path, Path],
    pixels: np.ndarray,
    classes: np.ndarray,
    shapes: np.ndarray,
    number: int,
) -> list[dict[str, Any]]:
    """Write the image and the PNG of one sample, and return its `segments_info`.

    Every shape of a thing is a segment; shapes of the same stuff are one. Ids are spread over all three bytes.

    Args:
        places: files of image and PNG.
        classes: (S + 1,) class number of each shape after a 0: the position of the class in the table.
        shapes: (H, W) the shape of each pixel, 0 for none.
        number: of the sample.
    """
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(places[0], quality=95)
    table = dataset.classes
    things = table.is_thing[classes]
    segment = np.where(things, np.arange(len(classes)), [np.flatnonzero(classes == kind)[0] for kind in classes])
    segment[0] = 0
    ids = np.where(segment > 0, segment * ((1 << 24) // len(classes) - 1) + number % 97, 0)
    write_segment_ids(places[1], ids[shapes])
    rows = []
    last = len(classes) - 1
    for place in range(1, len(classes)):
        region = ids[shapes] == ids[place]
        if segment[place] != place or not region.any():
            continue
        down, right = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
        crowd = dataset is not ADE20KPanoptic and number % CROWDED == CROWDED - 1 and place == last > 1 and things[place]
        rows.append({
            "id": int(ids[place]),
            "category_id": _category(dataset, int(classes[place])),
            "area": int(region.sum()),
            "bbox": [int(value) for value in (right[0], down[0], right[-1] - right[0] + 1, down[-1] - down[0] + 1)],
            "iscrowd": int(crowd),
        })  # fmt: skip
    return rows


def write_json(
    dataset: type[PanopticDataset],
    root: Path,
    subset: SubsetName,
    places: Sequence[tuple[Path, Path]],
    listed: Sequence[list[dict[str, Any]]],
    size: tuple[int, int],
) -> None:
    """Write the JSON file of a subset.

    Args:
        places: files of image and PNG of each sample.
        listed: `segments_info` of each sample.
        size: height and width of all images.
    """
    table = dataset.classes
    images, annotations = [], []
    for number, ((image, mask), segments) in enumerate(zip(places, listed, strict=True), 1):
        images.append({"id": number, "file_name": image.name, "height": size[0], "width": size[1]})
        annotations.append({"image_id": number, "file_name": mask.name, "segments_info": segments})
    categories = [
        {"id": _category(dataset, place), "name": table.names[place], "isthing": int(table.is_thing[place])}
        for place in range(1, len(table))
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / dataset.files[subset]).write_text(json.dumps(content), encoding="utf-8")


def _category(dataset: type[PanopticDataset], place: int) -> int:
    """The category id of a class, by its position in the table: ADE20K counts categories from 0."""
    return dataset.classes.ids[place] - (dataset is ADE20KPanoptic)

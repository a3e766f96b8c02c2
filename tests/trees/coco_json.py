"""COCO's JSON beside a few images, with objects as polygons and as run lengths."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contseg.data.datasets.coco_json import CocoJSON

HEIGHT, WIDTH = 24, 30
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 17, "name": "cat"}]
"""In no order, and with gaps, as COCO's own."""


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    """Corners of a rectangle, as a polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


def content(first: int, count: int) -> dict[str, Any]:
    """A JSON file of `count` images; each has a car behind a cat, and every second one a crowd of dogs."""
    images = [
        {"id": 100 + number, "file_name": f"street/{number:03d}.jpg", "height": HEIGHT, "width": WIDTH}
        for number in range(first, first + count)
    ]
    annotations = []
    for image in images:
        car = {"category_id": 3, "segmentation": [rectangle(2, 2, 14, 14), rectangle(16, 2, 20, 6)], "iscrowd": 0}
        cat = {"category_id": 17, "segmentation": [rectangle(8, 8, 18.5, 13.25)], "iscrowd": 0}
        dogs = {"category_id": 18, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [600, 40, 80]}, "iscrowd": 1}
        for annotation in [cat, car, dogs][: 2 + image["id"] % 2]:
            annotations.append({"id": 1000 + len(annotations), "image_id": image["id"], **annotation})
    return {"images": images, "annotations": annotations, "categories": list(CATEGORIES)}


def write_coco(root: Path, names: tuple[str, str] = ("train", "val")) -> None:
    """Four training and three test images, with their annotations."""
    (root / "annotations").mkdir(parents=True)
    for name, first, count in zip(names, (0, 4), (4, 3), strict=True):
        written = content(first, count)
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(written))
        (root / name / "street").mkdir(parents=True)
        for image in written["images"]:
            pixels = np.random.default_rng(image["id"]).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / image["file_name"])


def coco_json(root: Path) -> CocoJSON:
    write_coco(root)
    return CocoJSON(root)

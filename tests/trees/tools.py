"""The same masks as every annotation tool writes them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.data.annotations import coco_content, cvat_labelmap, cvat_mask, labelme_content
from contseg.data.classes import ClassTable
from contseg.data.files import write_palette_png

TABLE = ClassTable.of(["background", "boat", "traffic light", "a:b"])


def write_coco(root: Path, masks: dict[str, np.ndarray]) -> None:
    content = coco_content([(f"{name}.png", mask) for name, mask in masks.items()], TABLE)
    (root / "result.json").write_text(json.dumps(content))


def write_labelme(root: Path, masks: dict[str, np.ndarray]) -> None:
    (root / "labels.txt").write_text("\n".join(("__ignore__", "_background_", *TABLE.names[1:])))
    for name, mask in masks.items():
        path = root / "images" / f"{name}.json"
        path.write_text(json.dumps(labelme_content(f"{path.stem}.png", mask, TABLE)))


def write_cvat(root: Path, masks: dict[str, np.ndarray]) -> None:
    (root / "images").rename(root / "JPEGImages")
    (root / "labelmap.txt").write_text(cvat_labelmap(TABLE))
    for name, mask in masks.items():
        path = root / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cvat_mask(mask, TABLE)).save(path)


def write_masks(root: Path, masks: dict[str, np.ndarray]) -> None:
    (root / "classes.txt").write_text("\n".join(TABLE.names))
    for name, mask in masks.items():
        path = root / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_palette_png(path, mask, list(TABLE.colours))


WRITERS = {"masks": write_masks, "coco": write_coco, "labelme": write_labelme, "cvat": write_cvat}


def written(root: Path, kind: str, masks: dict[str, np.ndarray]) -> Path:
    """A folder of images with these masks in a format."""
    for name, mask in masks.items():
        path = root / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.dstack([mask * 50] * 3)).save(path)
    WRITERS[kind](root, masks)
    return root

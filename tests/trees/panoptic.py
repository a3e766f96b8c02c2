"""Tiny copies of ADE20K and COCO with panoptic labels, and the parts of which a test makes a broken one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contseg.data.datasets.panoptic import ADE20KPanoptic, COCOPanoptic, PanopticDataset
from contseg.data.files import write_segment_ids

SIZE = (24, 30)
Row = tuple[int, int, int]
"""Segment: id, category, whether it is a crowd."""

STRIPES = {
    ADE20KPanoptic: ((256, 2, 0), (7, 12, 0), (65536, 12, 0), (16777215, 149, 0)),
    COCOPanoptic: ((1, 187, 0), (300, 1, 0), (70000, 1, 0), (16777215, 200, 0), (2, 1, 1)),
}
"""Segments of every image, each in a stripe of its own: ADE20K has sky, two persons and a flag; COCO has sky, two persons, a
rug and a crowd of persons."""


def striped(rows: tuple[Row, ...]) -> np.ndarray:
    """Ids (H, W): a stripe of columns per segment after one without annotation."""
    ids = np.zeros(SIZE, dtype=np.int64)
    width = SIZE[1] // (len(rows) + 1)
    for place, (number, _, _) in enumerate(rows, 1):
        ids[:, place * width : (place + 1) * width] = number
    return ids


def described(rows: tuple[Row, ...], ids: np.ndarray) -> list[dict[str, Any]]:
    """`segments_info` of an image."""
    return [
        {"id": number, "category_id": category, "iscrowd": crowd, "area": int((ids == number).sum()), "bbox": [0, 0, 1, 1]}
        for number, category, crowd in rows
    ]


def write_panoptic(kind: type[PanopticDataset], root: Path, images: dict[str, str], names: dict[str, list[str]]) -> None:
    """Images, PNGs and JSON files of both subsets.

    Args:
        images: the folder of the images of each subset.
        names: of the samples of each subset.
    """
    rows = STRIPES[kind]
    ids = striped(rows)
    first = int(kind is not ADE20KPanoptic)
    table = kind.classes
    categories = [
        {"id": number - 1 + first, "name": name, "isthing": int(number in table.things)}
        for number, name in zip(table.ids[1:], table.names[1:], strict=True)
    ]
    for subset, file in kind.files.items():
        listed: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": categories}
        masks = root / file.removesuffix(".json")
        for number, name in enumerate(names[subset]):
            image = root / images[subset] / f"{name}.jpg"
            for folder in (image.parent, masks):
                folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(len(name) + number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(image)
            write_segment_ids(masks / f"{name}.png", ids)
            listed["images"].append({"id": number, "file_name": image.name, "height": SIZE[0], "width": SIZE[1]})
            segments = described(rows, ids)
            listed["annotations"].append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
        (root / file).write_text(json.dumps(listed))


def ade20k_panoptic(root: Path, **options) -> ADE20KPanoptic:
    names = {
        subset: [f"ADE_{part}_{number:08d}" for number in (2, 1)] for subset, part in (("train", "train"), ("test", "val"))
    }
    folders = {subset: f"images/{folder}" for subset, folder in ADE20KPanoptic.folders.items()}
    write_panoptic(ADE20KPanoptic, root / "ADEChallengeData2016", folders, names)
    return ADE20KPanoptic(root, **options)


def coco_panoptic(root: Path, **options) -> COCOPanoptic:
    names = {"train": [f"{number:012d}" for number in (9, 25)], "test": [f"{139:012d}"]}
    write_panoptic(COCOPanoptic, root, dict(COCOPanoptic.folders), names)
    return COCOPanoptic(root, **options)


def change(dataset: PanopticDataset, how: Any, subset: str = "train") -> PanopticDataset:
    """The dataset after a change to the content of a JSON file.

    Args:
        how: called with the content, which it changes.
    """
    path = dataset.root / dataset.files[subset]
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))
    return type(dataset)(dataset.root)

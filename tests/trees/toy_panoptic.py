"""A dataset of plain colours in COCO's panoptic format: sky over a wall, and cats, cars and cows that cover each other."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.data.dataset import SubsetName
from contseg.data.datasets.panoptic import PanopticDataset
from contseg.data.files import write_segment_ids

SIZE = (32, 40)
WALL, SKY, CAT, COW = 1, 2, 3, 5
COLOURS = ((0, 0, 0), (120, 90, 60), (90, 160, 230), (220, 60, 60), (60, 190, 70), (200, 80, 200))


class ToyPanoptic(PanopticDataset):
    """Two kinds of stuff and three of things, in `images/SUBSET` and `SUBSET`, with `SUBSET.json`."""

    name = "toy-panoptic"
    classes = ClassTable(
        ("background", "wall", "sky", "cat", "car", "cow"), (0, 1, 2, 3, 4, 5), COLOURS, "unlabelled", things=(3, 4, 5)
    )
    files: ClassVar[Mapping[SubsetName, str]] = {"train": "train.json", "test": "test.json"}

    def __init__(self, root: Path | str, *, background: bool = True):
        self.root = Path(root)
        self._open(background)

    def _image_folder(self, subset: SubsetName) -> Path:
        return self.root / "images" / subset


def painted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """An image (H, W, 3), ids of its segments (H, W) from 0, -1 where nothing is annotated, and the class of each."""
    height, width = SIZE
    horizon = int(rng.integers(10, 22))
    ids = np.where(np.arange(height) < horizon, 0, 1)[:, None].repeat(width, axis=1)
    ids[:, :2] = -1
    kinds = [SKY, WALL]
    for _ in range(int(rng.integers(2, 5))):
        top, left = int(rng.integers(0, height - 12)), int(rng.integers(2, width - 12))
        ids[top : top + int(rng.integers(8, 13)), left : left + int(rng.integers(8, 13))] = len(kinds)
        kinds.append(int(rng.integers(CAT, COW + 1)))
    pixels = np.array([*(COLOURS[kind] for kind in kinds), (30, 30, 30)])[ids]
    shade = 25 * (ids % 3 - 1)[..., None]
    return (pixels + shade + rng.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8), ids, kinds


def write_subset(
    root: Path, subset: SubsetName, truths: Sequence[tuple[np.ndarray, Sequence[int]]], crowded: bool = False
) -> None:
    """Write PNGs of ids and the JSON file.

    Args:
        truths: of each image, ids from 0, -1 for none, and their class ids.
        crowded: whether the last segment of an image is a crowd.
    """
    listed: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    table = ToyPanoptic.classes
    for number, name in zip(table.ids[1:], table.names[1:], strict=True):
        listed["categories"].append({"id": number, "name": name, "isthing": int(number in table.things)})
    (root / subset).mkdir(parents=True, exist_ok=True)
    for number, (ids, kinds) in enumerate(truths):
        name = f"{subset}{number:02d}"
        write_segment_ids(root / subset / f"{name}.png", np.where(ids < 0, 0, 300 * (ids + 1)))
        rows = [
            {"id": 300 * (place + 1), "category_id": kind, "area": int((ids == place).sum()), "bbox": [0, 0, 1, 1],
             "iscrowd": int(crowded and kind in table.things and place == ids.max())}
            for place, kind in enumerate(kinds) if (ids == place).any()
        ]  # fmt: skip
        height, width = ids.shape
        listed["images"].append({"id": number, "file_name": f"{name}.png", "height": height, "width": width})
        listed["annotations"].append({"image_id": number, "file_name": f"{name}.png", "segments_info": rows})
    (root / f"{subset}.json").write_text(json.dumps(listed))


def write_toy(root: Path, train: int = 12, test: int = 4) -> Path:
    """Write the dataset; returns its folder."""
    rng = np.random.default_rng(0)
    for subset, count in (("train", train), ("test", test)):
        (root / "images" / subset).mkdir(parents=True, exist_ok=True)
        found = [painted(rng) for _ in range(count)]
        for number, (pixels, _, _) in enumerate(found):
            Image.fromarray(pixels).save(root / "images" / subset / f"{subset}{number:02d}.png")
        write_subset(root, subset, [(ids, kinds) for _, ids, kinds in found])  # type: ignore[arg-type]  # a subset's name
    return root

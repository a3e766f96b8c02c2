"""VOC 2012 as it is unpacked, with few pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from contseg.data.classes import voc_palette
from contseg.data.datasets.voc import VOC
from contseg.data.files import write_palette_png

SIZE = (24, 30)


def write_voc(root: Path, masks: str, lists: dict[str, list[str]], two_paths: bool = False) -> None:
    """JPEGs, palette masks with a border of 255 around each object, lists."""
    for folder in ("JPEGImages", masks, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for file, names in lists.items():
        lines = [f"/JPEGImages/{name}.jpg /{masks}/{name}.png" if two_paths else name for name in names]
        (root / "ImageSets" / "Segmentation" / file).write_text("\n".join(lines) + "\n")
        for name in names:
            rng = np.random.default_rng(int(name[-3:]))
            mask = np.zeros(SIZE, dtype=np.uint8)
            mask[4:20, 4:20] = 255
            mask[6:18, 6:18] = rng.integers(1, 21)
            Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
            write_palette_png(root / masks / f"{name}.png", mask, voc_palette())


def voc_official(root: Path) -> VOC:
    names = [f"2007_000{number:03d}" for number in range(7)]
    write_voc(root, "SegmentationClass", {"train.txt": names[:4], "val.txt": names[4:]})
    return VOC(root)


def voc_augmented(root: Path) -> VOC:
    names = [f"2008_000{number:03d}" for number in range(7)]
    inner = root / "VOCdevkit" / "VOC2012"
    write_voc(inner, "SegmentationClassAug", {"trainaug.txt": names[:4], "val.txt": names[4:]}, two_paths=True)
    return VOC(root)

"""Tiny copies of ADE20K, Cityscapes, LIP, COCO-Stuff and Pascal-Context in their official layouts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from contseg.data.datasets.ade20k import ADE20K
from contseg.data.datasets.cityscapes import Cityscapes
from contseg.data.datasets.coco_stuff import COCOStuff10k, COCOStuff164k
from contseg.data.datasets.lip import LIP
from contseg.data.datasets.pascal_context import PascalContext

SIZE = (24, 30)


def write_pair(image: Path, mask: Path, values: Sequence[int], seed: int) -> None:
    """An image and a mask that holds all of these values; a .mat mask has the key `S`."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(np.array(values, dtype=np.uint8), SIZE)
    ids[0, : len(values)] = values
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(image)
    if mask.suffix == ".mat":
        savemat(mask, {"S": ids, "names": np.array(["unlabeled"], dtype=object)})
    else:
        Image.fromarray(ids).save(mask)


def ade20k(root: Path, **options) -> ADE20K:
    inner = root / "ADEChallengeData2016"
    for folder, prefix, count in (("training", "ADE_train", 4), ("validation", "ADE_val", 3)):
        for number in range(count):
            name = f"{prefix}_{number + 1:08d}"
            image, mask = inner / "images" / folder / f"{name}.jpg", inner / "annotations" / folder / f"{name}.png"
            write_pair(image, mask, (0, 1, 3, 13, 150), number)
    return ADE20K(root, **options)


def cityscapes(root: Path, **options) -> Cityscapes:
    for folder, cities in (("train", ("aachen", "bochum", "zurich")), ("val", ("frankfurt", "lindau"))):
        for city in cities:
            for number in range(2):
                name = f"{folder}/{city}/{city}_000000_{number:06d}"
                write_pair(
                    root / "leftImg8bit" / f"{name}_leftImg8bit.png",
                    root / "gtFine" / f"{name}_gtFine_labelIds.png",
                    (0, 3, 7, 26, 33, 255),
                    number,
                )
    return Cityscapes(root, **options)


def lip(root: Path) -> LIP:
    for part, count in (("train", 4), ("val", 3)):
        names = [f"{part}_{number}" for number in range(count)]
        for number, name in enumerate(names):
            write_pair(
                root / f"{part}_images" / f"{name}.jpg",
                root / f"{part}_segmentations" / f"{name}.png",
                (0, 2, 14, 15, 19, 255),
                number,
            )
        (root / f"{part}_id.txt").write_text("\n".join(names) + "\n")
    return LIP(root)


def coco_stuff_10k(root: Path, **options) -> COCOStuff10k:
    (root / "imageLists").mkdir(parents=True)
    for part, count in (("train", 4), ("test", 3)):
        names = [f"COCO_{part}2014_{number:012d}" for number in range(count)]
        for number, name in enumerate(names):
            suffix = ".mat" if number % 2 else ".png"
            mask = root / "annotations" / f"{name}{suffix}"
            write_pair(root / "images" / f"{name}.jpg", mask, (0, 1, 92, 182), number)
        (root / "imageLists" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return COCOStuff10k(root, **options)


def coco_stuff_164k(root: Path, **options) -> COCOStuff164k:
    for part, numbers in (("train2017", range(4)), ("val2017", range(4, 7))):
        for number in numbers:
            mask = root / "stuffthingmaps" / part / f"{number:012d}.png"
            write_pair(root / part / f"{number:012d}.jpg", mask, (0, 91, 181, 255), number)
    return COCOStuff164k(root, **options)


def pascal_context(root: Path, **options) -> PascalContext:
    inner = root / "VOCdevkit" / "VOC2010"
    lists = inner / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    for part, count in (("train", 4), ("val", 3)):
        names = [f"2008_{part}{number:03d}" for number in range(count)]
        for number, name in enumerate(names):
            mask = inner / "SegmentationClassContext" / f"{name}.png"
            write_pair(inner / "JPEGImages" / f"{name}.jpg", mask, (0, 1, 37, 59, 255), number)
        (lists / f"{part}.txt").write_text("\n".join(names) + "\n")
    return PascalContext(root, **options)

"""Tiny copies of every dataset, each in its real layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.data.classes import voc_palette
from contseg.data.digits import Digits
from contseg.data.files import write_palette_png
from contseg.data.folder import Folder
from contseg.data.voc import VOC

SIZE = (24, 30)


def write_voc(root: Path, masks: str, lists: dict[str, list[str]], two_paths: bool = False) -> None:
    """VOC2012 as it is unpacked: JPEGs, palette masks with a border of 255 around each object, lists."""
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


def write_folder(root: Path, names: list[str], ids: tuple[int, ...], classes: dict[str, str]) -> None:
    """A dataset folder with these samples, mask values and files."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        mask = rng.choice(ids, SIZE).astype(np.uint16 if max(ids) > 255 else np.uint8)
        for part, pixels in (("images", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)), ("masks", mask)):
            path = root / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    for file, text in classes.items():
        (root / file).write_text(text)


def voc_official(root: Path) -> VOC:
    names = [f"2007_000{number:03d}" for number in range(7)]
    write_voc(root, "SegmentationClass", {"train.txt": names[:4], "val.txt": names[4:]})
    return VOC(root)


def voc_augmented(root: Path) -> VOC:
    names = [f"2008_000{number:03d}" for number in range(7)]
    inner = root / "VOCdevkit" / "VOC2012"
    write_voc(inner, "SegmentationClassAug", {"trainaug.txt": names[:4], "val.txt": names[4:]}, two_paths=True)
    return VOC(root)


def digits(root: Path) -> Digits:
    return Digits(root, train=4, test=3, size=32)


def folder_with_lists(root: Path) -> Folder:
    names = [f"street/{number:02d}" for number in range(7)]
    lists = {"train.txt": "\n".join(names[:4]), "test.txt": "\n".join(f"{name}.png" for name in names[4:])}
    write_folder(root, names, (0, 1, 2), {"classes.txt": "background\ncat\ndog\n", **lists})
    return Folder(root)


def folder_with_subfolders(root: Path) -> Folder:
    names = [f"train/{number}" for number in range(4)] + [f"val/{number}" for number in range(3)]
    write_folder(root, names, (0, 1, 2, 255), {"classes.txt": "background\ncat\ndog\n"})
    return Folder(root)


def folder_divided_by_hash(root: Path) -> Folder:
    names = [f"{letter}" for letter in "abcdefghijklmnopqrst"]
    write_folder(root, names, (0, 7), {"classes.yaml": "{0: background, 7: car}"})
    return Folder(root)


def folder_with_large_ids(root: Path) -> Folder:
    names = [f"train/{number}" for number in range(4)] + [f"test/{number}" for number in range(3)]
    table = "- {id: 300, name: car, colour: [1, 2, 3]}\n- {id: 0, name: background}\n"
    write_folder(root, names, (0, 300), {"classes.yaml": table})
    return Folder(root)


DATASETS = {
    function.__name__: function
    for function in (
        voc_official,
        voc_augmented,
        digits,
        folder_with_lists,
        folder_with_subfolders,
        folder_divided_by_hash,
        folder_with_large_ids,
    )
}


@pytest.fixture(params=DATASETS)
def dataset(request, tmp_path):
    """Each dataset in turn."""
    return DATASETS[request.param](tmp_path / "data")


@pytest.fixture
def folder(make_folder) -> Path:
    """A sound dataset folder, to be broken."""
    return make_folder()

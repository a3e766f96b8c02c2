"""Write a part of a dataset as a folder of one's own, in which only some classes are labelled."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contseg.atomic import atomic_folder
from contseg.data.classes import ClassTable, voc_palette
from contseg.data.dataset import SegmentationDataset
from contseg.data.files import write_palette_png
from contseg.data.presence import Progress, build_presence
from contseg.errors import ContsegError


def extract(
    dataset: SegmentationDataset, names: Sequence[str], out: Path, most: int = 60, progress: Progress | None = None
) -> int:
    """Write training images that contain some classes, and masks in which only these are labelled.

    The folder has `images/`, `masks/` and `classes.txt`; other pixels are 0.

    Args:
        names: of the classes.
        out: folder to write to; must not exist.
        most: number of images, the first ones of the dataset.
        progress: called with (done, total) as masks are read.

    Returns:
        the number of images.

    Raises:
        ContsegError: the dataset lacks a class, no image contains one, or the folder exists.
    """
    if out.exists():
        raise ContsegError(f"{out}: exists already; choose a new folder with --out")
    ids = [dataset.classes.ids[dataset.classes.index_of(name)] for name in names]
    presence = build_presence(dataset, "train", progress=progress)
    columns = [presence.ids.index(number) for number in ids]
    chosen = [presence.names[row] for row in np.flatnonzero((presence.pixels[:, columns] > 0).any(axis=1))[:most]]
    if not chosen:
        raise ContsegError(f"{dataset.root}: no training image contains {', '.join(names)}; name another class")
    table = ClassTable.of(["background", *names])
    with atomic_folder(out) as folder:
        for part in ("images", "masks"):
            (folder / part).mkdir()
        for name in chosen:
            source, mask = dataset.image_path(name), dataset.read_mask(name)
            flat = name.replace("/", "-")
            shutil.copyfile(source, folder / "images" / f"{flat}{source.suffix}")
            labels = np.zeros(mask.shape, dtype=np.uint8)
            for label, number in enumerate(ids, start=1):
                labels[mask == number] = label
            write_palette_png(folder / "masks" / f"{flat}.png", labels, voc_palette())
        (folder / "classes.txt").write_text("\n".join(table.names) + "\n", encoding="utf-8")
    return len(chosen)

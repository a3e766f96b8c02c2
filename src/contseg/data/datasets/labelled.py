"""Labelled images in any format of the usual annotation tools."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from contseg.data.dataset import SUBSETS, SegmentationDataset
from contseg.data.datasets.coco_json import CocoJSON
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.labelme import Labelme
from contseg.data.files import files_below
from contseg.errors import ContsegError

_COCO_NAMES = ("instances_", "_annotations.coco")
Unlabelled = Literal["unknown", "background"]


def open_labelled(path: Path | str, *, unlabelled: Unlabelled | None = None, **options: Any) -> SegmentationDataset:
    """Open a folder of labelled images; the format is detected.

    Args:
        path: a folder with `images/`, `masks/` and a class list, or an export in COCO's JSON (CVAT, Roboflow, Label
            Studio), CVAT's "Segmentation mask 1.1", or labelme's JSON.
        unlabelled: the meaning of pixels without a label: `unknown`, which are never scored, or `background`. Default:
            as the format defines it.
        options: options of the dataset, as under `data.options` in a recipe.

    Raises:
        ContsegError: the folder is missing or has none of these formats, or its files are invalid.
    """
    if unlabelled not in (None, "unknown", "background"):
        raise ContsegError(f"unlabelled: {unlabelled!r} is unknown; use 'unknown' or 'background'")
    dataset = format_of(Path(path))(path, **options)
    if unlabelled and dataset.classes.has_background:
        meaning: Literal["annotated", "unscored"] = "annotated" if unlabelled == "background" else "unscored"
        dataset.classes = replace(dataset.classes, background=meaning)
    return dataset


def format_of(path: Path) -> type[Folder | CocoJSON | Labelme]:
    """The dataset class that reads a folder; `Folder` if it is none of the others."""
    if any((path / folder).is_dir() for folder in ("masks", "SegmentationClass")):
        return Folder
    jsons = [one for one in files_below(path) if one.suffix.lower() == ".json"] if path.is_dir() else []
    if any(one.name.startswith(_COCO_NAMES) for one in jsons):
        return CocoJSON
    for one in jsons:
        text = one.read_text(encoding="utf-8", errors="replace")
        if '"annotations"' in text and '"categories"' in text:
            return CocoJSON
        if '"shapes"' in text:
            return Labelme
    return Folder


def all_names(dataset: SegmentationDataset) -> list[str]:
    """The names of all samples, training images first.

    Example:
        >>> from contseg.data.datasets.digits import Digits
        >>> len(all_names(Digits(train=3, test=2, size=32)))
        5
    """
    return list(dict.fromkeys(name for subset in SUBSETS for name in dataset.names(subset)))

"""Labelled images in any format of the usual annotation tools."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from contseg.data.dataset import SUBSETS, SegmentationDataset
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.formats import format_of
from contseg.data.open import open_dataset
from contseg.errors import ContsegError

Unlabelled = Literal["unknown", "background"]


def open_labelled(path: Path | str, *, unlabelled: Unlabelled | None = None, **options: Any) -> SegmentationDataset:
    """Open a folder of labelled images; the format is detected. Images without a mask or JSON file are left out.

    Args:
        path: a folder with `images/`, `masks/` and a class list, or an export in COCO's JSON (CVAT, Roboflow, Label
            Studio), CVAT's "Segmentation mask 1.1", or labelme's JSON.
        unlabelled: the meaning of pixels without a label: `unknown`, which are never scored, or `background`. Default:
            as the format defines it.
        options: options of the dataset, as under `data.options` in a recipe.

    Raises:
        ContsegError: the folder is missing or has none of these formats, its files are invalid, or an option is unknown.
    """
    if unlabelled not in (None, "unknown", "background"):
        raise ContsegError(f"unlabelled: {unlabelled!r} is unknown; use 'unknown' or 'background'")
    if format_of(Path(path)) is Folder:
        options = {"partial": True} | options
    dataset = open_dataset("folder", path, **options)
    if unlabelled and dataset.classes.has_background:
        meaning: Literal["annotated", "unscored"] = "annotated" if unlabelled == "background" else "unscored"
        dataset.classes = replace(dataset.classes, background=meaning)
    return dataset


def all_names(dataset: SegmentationDataset) -> list[str]:
    """The names of all samples, training images first.

    Example:
        >>> from contseg.data.datasets.digits import Digits
        >>> len(all_names(Digits(train=3, test=2, size=32)))
        5
    """
    return list(dict.fromkeys(name for subset in SUBSETS for name in dataset.names(subset)))

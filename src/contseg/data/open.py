"""Datasets by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from contseg.data.coco_json import CocoJSON
from contseg.data.dataset import SegmentationDataset
from contseg.data.digits import Digits
from contseg.data.folder import Folder
from contseg.data.isprs import ISPRS
from contseg.data.voc import VOC
from contseg.errors import ContsegError, did_you_mean

DATASETS: dict[str, Callable[..., SegmentationDataset]] = {
    "voc": VOC,
    "isprs": ISPRS,
    "coco-json": CocoJSON,
    "folder": Folder,
    "digits": Digits,
}


def open_dataset(name: str, path: Path | str | None = None, **options: Any) -> SegmentationDataset:
    """The dataset `name` at `path` (`digits` needs none).

    Raises:
        ContsegError: unknown name, missing path, unknown option, or a layout that is not the dataset's.
    """
    if name not in DATASETS:
        raise ContsegError(f"data.dataset: unknown dataset '{name}'; {did_you_mean(name, DATASETS)}")
    if path is None and name != "digits":
        raise ContsegError(f"data.path: dataset '{name}' needs a folder; set data.path=FOLDER")
    try:
        return DATASETS[name](path, **options)
    except TypeError as error:
        raise ContsegError(f"data.options: {error}; see the docstring of dataset '{name}'") from None

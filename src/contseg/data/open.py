"""Datasets by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from contseg.data.dataset import SegmentationDataset
from contseg.data.datasets.ade20k import ADE20K
from contseg.data.datasets.cityscapes import Cityscapes
from contseg.data.datasets.coco_json import CocoJSON
from contseg.data.datasets.coco_stuff import COCOStuff10k, COCOStuff164k
from contseg.data.datasets.digits import Digits
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.isprs import ISPRS
from contseg.data.datasets.lip import LIP
from contseg.data.datasets.pascal_context import PascalContext
from contseg.data.datasets.voc import VOC
from contseg.data.pixels import Reading
from contseg.errors import ContsegError, did_you_mean

DATASETS: dict[str, Callable[..., SegmentationDataset]] = {
    "voc": VOC,
    "ade20k": ADE20K,
    "cityscapes": Cityscapes,
    "lip": LIP,
    "coco-stuff-10k": COCOStuff10k,
    "coco-stuff-164k": COCOStuff164k,
    "pascal-context": PascalContext,
    "isprs": ISPRS,
    "coco-json": CocoJSON,
    "folder": Folder,
    "digits": Digits,
}


def open_dataset(name: str, path: Path | str | None = None, **options: Any) -> SegmentationDataset:
    """The dataset `name` at `path` (`digits` needs none).

    Args:
        options: of the dataset's class; and of every dataset `bands` and `range`, see `contseg.data.pixels.Reading`.

    Raises:
        ContsegError: unknown name, missing path, unknown option, an option `background` that is neither
            true nor false, `bands` or `range` that are none, or a layout that is not the dataset's.
    """
    if name not in DATASETS:
        raise ContsegError(f"data.dataset: unknown dataset '{name}'; {did_you_mean(name, DATASETS)}")
    if path is None and name != "digits":
        raise ContsegError(f"data.path: dataset '{name}' needs a folder; set data.path=FOLDER")
    background = options.get("background", True)
    if name != "folder" and not isinstance(background, bool):  # YAML 1.2 reads `no` as a word, which Python takes for true
        raise ContsegError(f"data.options.background: {background!r} is neither true nor false")
    try:
        reading = Reading.of(options.pop("bands", None), options.pop("range", None))
    except ContsegError as error:
        raise ContsegError(f"data.options.{error}") from None
    try:
        dataset = DATASETS[name](path, **options)
    except TypeError as error:
        raise ContsegError(f"data.options: {error}; see the docstring of dataset '{name}'") from None
    dataset.reading = reading
    return dataset

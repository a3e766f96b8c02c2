"""Datasets by name."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contseg.data.dataset import SegmentationDataset
from contseg.data.datasets.formats import format_of
from contseg.data.limits import set_max_pixels
from contseg.data.links import require_inside
from contseg.data.pixels import Reading
from contseg.errors import ContsegError, did_you_mean
from contseg.plugins import Registry

DATASETS: Registry[type[SegmentationDataset]] = Registry(
    "datasets",
    "data.dataset",
    {
        "voc": "contseg.data.datasets.voc:VOC",
        "ade20k": "contseg.data.datasets.ade20k:ADE20K",
        "ade20k-panoptic": "contseg.data.datasets.panoptic:ADE20KPanoptic",
        "coco-panoptic": "contseg.data.datasets.panoptic:COCOPanoptic",
        "cityscapes": "contseg.data.datasets.cityscapes:Cityscapes",
        "lip": "contseg.data.datasets.lip:LIP",
        "coco-stuff-10k": "contseg.data.datasets.coco_stuff:COCOStuff10k",
        "coco-stuff-164k": "contseg.data.datasets.coco_stuff:COCOStuff164k",
        "pascal-context": "contseg.data.datasets.pascal_context:PascalContext",
        "isprs": "contseg.data.datasets.isprs:ISPRS",
        "coco-json": "contseg.data.datasets.coco_json:CocoJSON",
        "labelme": "contseg.data.datasets.labelme:Labelme",
        "folder": "contseg.data.datasets.folder:Folder",
        "digits": "contseg.data.datasets.digits:Digits",
        "globe": "contseg.data.datasets.globe:Globe",
    },
)
register_dataset = DATASETS.register


def open_dataset(
    name: str,
    path: Path | str | None = None,
    *,
    follow_links: bool = False,
    max_pixels: int | None = None,
    **options: Any,
) -> SegmentationDataset:
    """Open a dataset. `folder` detects the format, see `open_labelled`.

    Args:
        name: name in `DATASETS`.
        path: its folder; `digits` and `globe` need none.
        follow_links: whether links out of the folder are followed.
        max_pixels: the most pixels of an image, also of later datasets; default: `CONTSEG_MAX_PIXELS`, or 178 956 970.
        options: options of the dataset's class, and for every dataset `bands` and `range`, see
            `contseg.data.pixels.Reading`.

    Raises:
        ContsegError: unknown name, missing path, unknown option, `background` neither true nor false, invalid `bands` or
            `range`, a folder with another layout, or a file outside of the folder.
    """
    set_max_pixels(max_pixels, "data.max_pixels")
    if not isinstance(follow_links, bool):
        raise ContsegError(f"data.follow_links: {follow_links!r} is neither true nor false")
    kind: Any = DATASETS[name]  # each class has its own options
    if path is None and kind.needs_folder:
        raise ContsegError(f"data.path: dataset '{name}' needs a folder; set data.path=FOLDER")
    background = options.get("background", True)
    if name == "folder":
        kind = format_of(Path(path))  # type: ignore[arg-type]  # it needs a folder
    elif not isinstance(background, bool):  # YAML 1.2 reads `no` as a string, which is true in Python
        raise ContsegError(f"data.options.background: {background!r} is neither true nor false")
    try:
        reading = Reading.of(options.pop("bands", None), options.pop("range", None))
    except ContsegError as error:
        raise ContsegError(f"data.options.{error}") from None
    _require_options(kind, name, options)
    try:
        dataset: SegmentationDataset = kind(path, **options)
    except TypeError as error:
        raise ContsegError(f"data.options: {error}; see the docstring of dataset '{name}'") from None
    dataset.reading = reading
    if kind.needs_folder and not follow_links:
        require_inside(dataset, options)
    return dataset


def _require_options(kind: type, name: str, options: Iterable[str]) -> None:
    """Raise ContsegError if the class of a dataset has no such option."""
    _, *parameters = inspect.signature(kind).parameters.values()  # the first one is the folder
    known = [*(one.name for one in parameters), "bands", "range", "follow_links", "max_pixels"]
    for option in options:
        if option not in known and not any(one.kind is one.VAR_KEYWORD for one in parameters):
            raise ContsegError(f"data.options.{option}: dataset '{name}' has no such option; {did_you_mean(option, known)}")

"""Images of the old classes, labelled or not (`--keep`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset
from contseg.data.datasets.labelled import all_names, open_labelled
from contseg.data.listing import image_files
from contseg.data.matching import match_classes
from contseg.data.pixels import Reading
from contseg.errors import ContsegError
from contseg.extension.measure import LabelledPhotos, Photos, PlainPhotos
from contseg.scenarios.batch import Samples

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class OldImages:
    """Images of the old classes.

    Args:
        learn: labelled images that may be used for learning, or None.
        measure: images that models are compared on.
        notes: findings, one line each.
    """

    learn: Samples | None
    measure: Photos
    notes: tuple[str, ...] = ()


def open_old_images(path: Path, table: ClassTable, options: Mapping[str, Any] = NO_OPTIONS) -> OldImages:
    """Open a folder of labelled images in any format of `open_labelled`, or of images alone.

    Half of the labelled images, by the hash of their names, is kept for measuring.

    Args:
        table: classes of the extended model.
        options: of `open_labelled`; of images alone, only `bands` and `range` are used, and all links are followed.

    Raises:
        ContsegError: the folder does not exist, has no images, or labels no class of the model.
    """
    if not path.is_dir():
        raise ContsegError(f"{path}: folder not found; --keep needs a folder of old images")
    labelled = any((path / name).is_dir() for name in ("masks", "SegmentationClass")) or any(path.rglob("*.json"))
    if not labelled:
        files = image_files(path)
        if not files:
            raise ContsegError(f"{path}: no images; --keep needs a folder of old images")
        return OldImages(None, PlainPhotos(files, Reading.of(options.get("bands"), options.get("range"))))
    dataset = open_labelled(path, **options)
    samples, notes = samples_by_name(dataset, table, all_names(dataset))
    names = sorted(samples.names, key=lambda name: sha1(name.encode()).hexdigest())
    half = len(names) // 2
    learn = replace(samples, names=tuple(names[:half])) if half else None
    return OldImages(learn, LabelledPhotos(replace(samples, names=tuple(names[half:]))), (*dataset.notes, *notes))


def samples_by_name(
    dataset: SegmentationDataset, table: ClassTable, names: Sequence[str]
) -> tuple[Samples, tuple[str, ...]]:
    """Samples of a dataset with the outputs of a model as labels; classes are matched by name. Also returns notes.

    Labels are 255 where nothing is known, and K = `len(table)` where none of the annotated classes is: classes that the
    model lacks. Background is known where it is annotated in the dataset.

    Raises:
        ContsegError: the dataset has no class of the model, or two of its classes have one name.
    """
    try:
        match = match_classes(dataset.classes, table)
    except ContsegError as error:
        raise ContsegError(f"{dataset.root}: {error}") from None
    if not match.known:
        raise ContsegError(
            f"{dataset.root}: has none of the model's classes ({', '.join(table.names)}), only"
            f" {', '.join(dataset.classes.names)}; classes are matched by name"
        )
    lookup = np.full(65536, IGNORE, dtype=np.uint8)
    lookup[list(match.new)] = len(table)
    annotated = np.zeros(len(table), dtype=bool)
    for number, own in match.known.items():
        output = table.ids.index(own)
        lookup[number], annotated[output] = output, True
    if dataset.classes.background == "annotated" and table.has_background:
        lookup[0], annotated[0] = 0, True
    return Samples(dataset, tuple(names), lookup, annotated), match.notes

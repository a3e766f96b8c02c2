"""Files of a dataset stay in its folder, unless its user allows links out of it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from contseg.data.dataset import SUBSETS, SegmentationDataset
from contseg.errors import ContsegError


def require_inside(dataset: SegmentationDataset, options: Mapping[str, Any]) -> None:
    """Check that the images and masks of a dataset are in its folder, or in a folder that its options name.

    Links within these folders are allowed, and so is a link to the dataset itself.

    Args:
        options: options of the dataset; a text that is a folder is one that its user chose.

    Raises:
        ContsegError: a path or a link leads out of the folder.
    """
    chosen = (dataset.root / value for value in options.values() if isinstance(value, str))
    inside = [os.path.realpath(folder) for folder in (dataset.root, *(one for one in chosen if one.is_dir()))]
    known: dict[Path, str] = {}  # real paths of the folders, as most files share one
    for path in _files_of(dataset):
        if path.parent not in known:
            known[path.parent] = os.path.realpath(path.parent)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(known[path.parent], path.name)
        if not any(is_in(real, folder) for folder in inside):
            raise ContsegError(
                f"{path}: is {real}, outside of {dataset.root}; copy it there, or set data.follow_links=true if you trust"
                " the dataset"
            )


def is_in(path: str, folder: str) -> bool:
    """Whether a normalised path is a folder or in it.

    Example:
        >>> is_in("/data/a/b.png", "/data/a"), is_in("/data/ab.png", "/data/a")
        (True, False)
    """
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _files_of(dataset: SegmentationDataset) -> Iterable[Path]:
    for subset in SUBSETS:
        try:
            names = dataset.names(subset)
        except ContsegError:  # reported by the command that needs the subset
            continue
        for name in names:
            yield dataset.image_path(name)
            yield dataset.mask_path(name)

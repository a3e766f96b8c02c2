"""A segmenter as a folder to share: weights, a description in JSON, and a hash that detects changes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from contseg.atomic import atomic_file, write_text
from contseg.data.classes import ClassTable
from contseg.data.lists import read_text
from contseg.digest import file_sha256
from contseg.errors import ContsegError
from contseg.interop.adopted import is_foreign, open_foreign
from contseg.interop.segmenter_file import KEYS, describe, header_of, load_segmenter, require_makeable, save_segmenter
from contseg.models.segmenter import Segmenter
from contseg.parsing import parse_json

WEIGHTS, DESCRIPTION, STATISTICS = "segmenter.safetensors", "segmenter.json", "statistics.safetensors"


def save_pretrained(
    folder: Path | str,
    segmenter: Segmenter,
    classes: ClassTable,
    source: dict[str, Any] | None = None,
    statistics: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `segmenter.safetensors` and `segmenter.json` to a folder, which is created if missing.

    The JSON contains the options of the network (including mean and standard deviation of its input), the outputs of each
    step, the classes in output order, the source, and the SHA-256 of the weights. The weights are a file of
    `save_segmenter`, which can also be used alone.

    Args:
        classes: in output order.
        source: where the segmenter comes from, as values that JSON supports.
        statistics: what a method needs to continue, such as `GaussianSums.state_dict()`; written to
            `statistics.safetensors`, whose SHA-256 is in the JSON.

    Returns:
        the folder.

    Raises:
        ContsegError: the numbers of classes and outputs differ, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from contseg import NetworkOptions
        >>> segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}), [3])
        >>> folder = save_pretrained(Path(tempfile.mkdtemp()), segmenter, ClassTable.of(["background", "cat", "dog"]))
        >>> load_pretrained(folder)[1].names
        ('background', 'cat', 'dog')
    """
    folder = Path(folder)
    outputs = sum(segmenter.widths) - segmenter.options.unknown
    if len(classes) != outputs:
        raise ContsegError(f"{folder}: {len(classes)} classes for a segmenter of {outputs} outputs; name each output once")
    require_makeable(segmenter)
    description = describe(segmenter, classes, source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION).unlink(missing_ok=True)  # the folder is incomplete until the new description is written
        save_segmenter(folder / WEIGHTS, segmenter, classes, source)
        description |= {"sha256": file_sha256(folder / WEIGHTS)}
        (folder / STATISTICS).unlink(missing_ok=True)
        if statistics:
            with atomic_file(folder / STATISTICS) as partial:
                save_file({name: value.detach().cpu().contiguous() for name, value in statistics.items()}, partial)
            description["statistics"] = file_sha256(folder / STATISTICS)
        write_text(folder / DESCRIPTION, json.dumps(description, indent=1))
    except OSError as error:
        raise ContsegError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return folder


def load_pretrained(folder: Path | str, device: str = "cpu") -> tuple[Segmenter, ClassTable]:
    """Load a segmenter from a folder of `save_pretrained`, in eval mode, and its classes in output order.

    Args:
        device: see `load_segmenter`.

    Raises:
        ContsegError: a file is missing or damaged, the hash of the weights is wrong, or the two files contradict each other.
    """
    folder = Path(folder)
    path, weights = folder / DESCRIPTION, folder / WEIGHTS
    description = _read_description(path)
    if not weights.is_file():
        raise ContsegError(f"{weights}: segmenter file not found")
    _require_unchanged(weights, description["sha256"])
    segmenter, classes = load_segmenter(weights, device)
    header = header_of(weights) or {}
    differing = [key for key in KEYS if description[key] != header.get(key)]
    if differing:
        raise ContsegError(f"{path}: '{differing[0]}' differs from {WEIGHTS}; one of the files was changed")
    return segmenter, classes


def load_statistics(folder: Path | str) -> dict[str, Tensor]:
    """The statistics in a folder of `save_pretrained`, on CPU; {} if it has none.

    Raises:
        ContsegError: the file is missing or damaged, or its hash is wrong.
    """
    folder = Path(folder)
    wanted, path = _read_description(folder / DESCRIPTION).get("statistics"), folder / STATISTICS
    if wanted is None:
        return {}
    if not path.is_file():
        raise ContsegError(f"{path}: not found, and {DESCRIPTION} names it; fetch the whole folder again")
    _require_unchanged(path, wanted)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ContsegError(f"{path}: cannot be read ({str(error)[:120]}); fetch the whole folder again") from None


def _require_unchanged(path: Path, wanted: str) -> None:
    """Raise ContsegError unless a file has the SHA-256 of the description."""
    found = file_sha256(path)
    if found != wanted:
        raise ContsegError(
            f"{path}: SHA-256 is {found[:12]}..., in {DESCRIPTION} {str(wanted)[:12]}...;"
            " the file was changed or cut short; fetch it again"
        )


def open_segmenter(path: Path | str, device: str = "cpu") -> tuple[Segmenter, ClassTable]:
    """Load a segmenter from a folder of `save_pretrained`, a single `segmenter.safetensors`, or a model of another library.

    Args:
        device: see `load_segmenter`.

    Raises:
        ContsegError: see `load_pretrained`, `load_segmenter` and `open_foreign`.
    """
    path = Path(path)
    if not is_pretrained(path) and is_foreign(path):
        return open_foreign(path)[:2]
    return load_pretrained(path, device) if path.is_dir() else load_segmenter(path, device)


def source_of(path: Path) -> dict[str, Any]:
    """The source of a segmenter (folder or file), as it was saved."""
    if path.is_dir():
        return _read_description(path / DESCRIPTION)["source"]
    return (header_of(path) or {}).get("source", {})


def is_pretrained(folder: Path | str) -> bool:
    """Whether a folder has the files of `save_pretrained`."""
    return (Path(folder) / DESCRIPTION).is_file()


def _read_description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ContsegError(f"{path}: not found; a segmenter folder contains {WEIGHTS} and {DESCRIPTION}")
    description = parse_json(read_text(path), str(path))
    if not isinstance(description, dict):
        raise ContsegError(f"{path}: contains a {type(description).__name__}; expected keys {', '.join((*KEYS, 'sha256'))}")
    missing = [key for key in (*KEYS, "sha256") if key not in description]
    if missing:
        raise ContsegError(f"{path}: lacks '{missing[0]}'; expected keys {', '.join((*KEYS, 'sha256'))}")
    return description

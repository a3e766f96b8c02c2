"""The record of `contseg predict` in an output folder: only files that it wrote, and nobody changed, are overwritten."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contseg.atomic import writable, write_text
from contseg.data.lists import read_text
from contseg.digest import file_sha256
from contseg.errors import ContsegError

KINDS = ("ids", "colours", "overlays")
"""Folders of the results of format `png`."""
MARKER = ".contseg-predict.json"
"""File in the output folder that lists the results: path to SHA-256, or to null while the command runs."""


def results_in(folder: Path) -> dict[Path, str | None]:
    """The results that were written to a folder, and their SHA-256 if it is known; {} without a record."""
    marker = folder / MARKER
    if not marker.is_file():
        return {}
    try:
        content = json.loads(read_text(marker))
    except (ContsegError, ValueError):
        return {}
    if isinstance(content, list):  # of an earlier version: names, relative to the folders of the results
        return {folder / place / str(name): None for name in content for place in (*KINDS, "SegmentationClass", ".")}
    if not isinstance(content, dict):
        return {}
    return {folder / name: digest for name, digest in content.items() if not Path(name).is_absolute()}


@contextmanager
def recorded(folder: Path, images: Sequence[Path], results: Iterable[Path]) -> Iterator[None]:
    """Record the results that the block writes to a folder.

    They are recorded before the block too, so that those of a command that was killed are recognised.

    Args:
        images: the images to predict.
        results: the files to write.

    Raises:
        ContsegError: a result would overwrite an image, a file that is no result, or a result that was changed since; or
            the folder cannot be written. The block is not entered.
    """
    inputs, known = {image.resolve() for image in images}, results_in(folder)
    announced = dict.fromkeys(results)
    for path in announced:
        if path.resolve() in inputs:
            raise ContsegError(f"{path}: is an image to predict and would be overwritten; choose another folder with --out")
        if path.exists() or path.is_symlink():
            _require_own(path, known)
    _write(folder, known | announced)
    yield
    _write(folder, known | {path: _digest(path) for path in announced if path.is_file()})


def _require_own(path: Path, known: dict[Path, str | None]) -> None:
    """Raise ContsegError if an existing file is not the result that is recorded."""
    if path not in known:
        raise ContsegError(
            f"{path}: exists, and contseg predict did not write it; move it, or choose another folder with --out"
        )
    if known[path] is not None and known[path] != _digest(path):
        raise ContsegError(
            f"{path}: was changed after it was predicted; move it to keep it, or choose another folder with --out"
        )


def _digest(path: Path) -> str | None:
    """SHA-256 of a result; None if programs that only show it may change it."""
    return None if path.name.endswith(".aux.xml") else file_sha256(path)


def _write(folder: Path, results: dict[Path, str | None]) -> None:
    content = {path.relative_to(folder).as_posix(): digest for path, digest in sorted(results.items())}
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARKER, json.dumps(content, ensure_ascii=False))

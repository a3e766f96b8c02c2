"""Which files a new run may delete in its folder: those of the run that it replaces, and nothing else."""

import re
from contextlib import suppress
from pathlib import Path

from contseg import lock
from contseg.atomic import PARTIAL, writable
from contseg.engine.run import FILES, FOLDERS, STATE, STATE_BEFORE
from contseg.errors import ContsegError
from contseg.manifest import NAME, Manifest

RECIPE = "recipe.yaml"
_PARTS = re.compile(
    r"steps/\d+/(segmenter\.safetensors|state(\.before)?\.pt|confusion\.npz|predictions\.npz)|tensorboard/events\.out\.tfevents\..*"
)
"""Files of a run in its folders."""


def require_free(folder: Path, overwrite: bool = False) -> None:
    """Raise ContsegError unless a new run may be created in a folder. Nothing is changed.

    Args:
        overwrite: whether a run in the folder may be replaced.

    Raises:
        ContsegError: the folder contains a run and `overwrite` is False; it contains other files and no run; or the new run
            would write over a file that no run wrote.
    """
    if folder.is_file():
        raise ContsegError(f"{folder}: is a file; choose another folder with --out")
    if not folder.exists():
        return
    own = _own_files(folder)
    if _is_unused(folder, own):
        return
    if folder / RECIPE not in own:
        raise ContsegError(f"{folder}: is not empty and contains no run; choose another folder with --out")
    if not overwrite:
        raise ContsegError(f"{folder}: contains a run already; continue it with --resume {folder}, or use --overwrite")
    for path in sorted(_in_layout(folder) - own - {*(folder / "tensorboard").glob("*")}):  # names of events are unique
        raise ContsegError(f"{path}: exists, and the run in the folder did not write it; move it, or choose another --out")


def clear(folder: Path, overwrite: bool = False) -> None:
    """Create the folder of a new run. Of a run in it, only the files that it wrote are deleted.

    Raises:
        ContsegError: see `require_free`.
    """
    require_free(folder, overwrite)
    if own := _own_files(folder):
        _delete(folder, own - {folder / RECIPE})
        (folder / RECIPE).unlink(missing_ok=True)  # its entry stays: after a kill, the folder is still that of a run
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)


def discard(folder: Path) -> None:
    """Delete a run without a saved state, and its folder if nothing else is in it; other runs are kept."""
    own = _own_files(folder)
    if not own or any(path.is_file() for name in (STATE, STATE_BEFORE) for path in folder.glob(f"steps/*/{name}")):
        return
    _delete(folder, own)
    Manifest(folder).path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty
        folder.rmdir()


def would_delete(folder: Path, path: Path) -> bool:
    """Whether `clear` deletes a file, or a file in a folder that is in the folder of the run."""
    path, folder = path.resolve(), folder.resolve()
    return path == folder or any(path in (own, *own.parents) for own in _own_files(folder) if path.is_relative_to(folder))


def _own_files(folder: Path) -> set[Path]:
    """The files that the run in a folder wrote: those of its manifest.

    A run that an earlier version began has no manifest, or one without the recipe; its files are those of the layout.
    """
    manifest = Manifest(folder)
    if RECIPE in manifest.entries():  # the file may be missing, if a command was killed while it replaced the run
        return manifest.owned() | {folder / RECIPE} | _partial(folder)
    if (folder / RECIPE).is_file() and any((folder / name).is_file() for name in ("plan.json", "environment.json")):
        inside = {path for path in _in_layout(folder) if path.resolve().is_relative_to(folder.resolve())}
        return inside | manifest.owned() | _partial(folder)
    return set()


def _is_unused(folder: Path, own: set[Path]) -> bool:
    """Whether a folder is empty, or has only what a command left that was killed before its run began."""
    left = _partial(folder)
    if own and not (folder / RECIPE).exists():
        left.add(folder / NAME)
    return all(path in left or path.name.startswith(lock.OF_RUN) for path in folder.iterdir())


def _in_layout(folder: Path) -> set[Path]:
    """The existing files and links that have the name of a file of a run."""
    found = [folder / name for name in FILES if name != NAME]
    found += [path for place in FOLDERS for path in (folder / place).rglob("*") if _is_part(path, folder)]
    return {path for path in found if path.is_file() or path.is_symlink()}


def _partial(folder: Path) -> set[Path]:
    """Files of a run that a killed process did not complete."""
    found = [*folder.glob(f"*{PARTIAL}"), *folder.glob(f"steps/*/*{PARTIAL}")]
    return {path for path in found if (whole := path.with_suffix("")).name in FILES or _is_part(whole, folder)}


def _is_part(path: Path, folder: Path) -> bool:
    return _PARTS.fullmatch(path.relative_to(folder).as_posix()) is not None


def _delete(folder: Path, files: set[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
    if (manifest := Manifest(folder)).path.is_file():
        manifest.forget(*files)
    for place in (*folder.glob("steps/[0-9]*"), *(folder / name for name in FOLDERS)):
        with suppress(OSError):  # it is not empty
            place.rmdir()

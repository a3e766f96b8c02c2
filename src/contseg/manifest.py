"""The files that were written to a folder, with size and SHA-256, in its `manifest.json`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from contseg import atomic
from contseg.digest import file_sha256, sha256
from contseg.errors import ContsegError

NAME = "manifest.json"
RESTORE = "restore the file that was written"
DEPTH = 3
"""Levels between a file and the manifest above it: `steps/00/state.pt` of a run."""


class Manifest:
    """The manifest of a folder.

    `manifest.json` has an entry per file, under its POSIX path relative to the folder: `size` in bytes, `sha256`, and
    `previous`, the SHA-256 of the version that it replaces. Files that grow (logs) have only their name. The manifest is
    written atomically, before the file that it describes: after a kill between the two, `previous` describes the file.

    Several processes may write to one folder.

    Args:
        folder: the folder; it may be missing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> manifest = Manifest(folder)
        >>> with manifest.writing(folder / "numbers.txt") as partial:
        ...     _ = partial.write_text("1 2 3")
        >>> manifest.check(folder / "numbers.txt")
        >>> _ = (folder / "numbers.txt").write_text("1 2 4")
        >>> manifest.check(folder / "numbers.txt")
        Traceback (most recent call last):
        contseg.errors.ContsegError: .../numbers.txt: damaged: its SHA-256 is not the one that was written; restore ...
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.path = self.folder / NAME

    @contextmanager
    def writing(self, path: Path, keep: Path | None = None) -> Iterator[Path]:
        """Write a file atomically and record it; see `contseg.atomic.atomic_file`.

        Args:
            keep: new path of the version that is replaced, in the same folder; None deletes it.

        Raises:
            ContsegError: the file cannot be written; the old one and its entry are unchanged.
        """
        with atomic.atomic_file(path) as partial:
            yield partial
            with self._changing() as files:
                before = files.get(self._name(path), {})
                digest = file_sha256(partial)
                previous = before.get("previous") if before.get("sha256") == digest else before.get("sha256")
                files[self._name(path)] = {"sha256": digest, "size": partial.stat().st_size, "previous": previous}
                if keep:
                    files.pop(self._name(keep), None)
                    if before:
                        files[self._name(keep)] = before
            if keep and path.is_file():
                os.replace(path, keep)

    def record(self, *paths: Path, grows: bool = False) -> None:
        """Record files that were written completely.

        Args:
            grows: the files are appended to; only their names are recorded.
        """
        empty: dict[str, Any] = {"sha256": None, "size": None}
        if grows and all(self.entries().get(self._name(path)) == empty for path in paths):
            return
        found = {
            self._name(path): empty if grows else {"sha256": file_sha256(path), "size": path.stat().st_size}
            for path in paths
        }
        with self._changing() as files:
            files.update(found)

    def forget(self, *paths: Path) -> None:
        """Remove the entries of files, if there are any."""
        names = {self._name(path) for path in paths}
        if names & self.entries().keys():
            with self._changing() as files:
                for name in names:
                    files.pop(name, None)

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file of the folder together with its entry."""
        with self._changing() as files:
            if entry := files.get(self._name(old)):
                files[self._name(new)] = entry  # the old entry stays: after a kill here, the file has its old name
        os.replace(old, new)

    def check(self, path: Path, advice: str = RESTORE) -> None:
        """Raise ContsegError if a file differs from the one that was written. Files without an entry pass.

        Args:
            advice: end of the error: what to do.

        Raises:
            ContsegError: the file is missing or damaged, or the manifest is damaged.
        """
        if problem := self._problem(path):
            raise ContsegError(f"{path}: {problem}; {advice}")

    def is_sound(self, path: Path) -> bool:
        """Whether a file exists and equals the one that was written.

        Raises:
            ContsegError: the manifest is damaged.
        """
        return path.is_file() and self._problem(path) is None

    def _problem(self, path: Path) -> str | None:
        entry = self.entries().get(self._name(path))
        if entry is None or entry["sha256"] is None:
            return None
        if not path.is_file():
            return "missing, although it was written"
        if file_sha256(path) not in (entry["sha256"], entry.get("previous")):
            return "damaged: its SHA-256 is not the one that was written"
        return None

    def owned(self) -> set[Path]:
        """The existing files with an entry; not the manifest, and nothing that a link places outside the folder.

        Raises:
            ContsegError: the manifest is damaged.
        """
        files = {self.folder / name for name in self.entries()}
        return {path for path in files if path.is_file() and path.resolve().is_relative_to(self.folder.resolve())}

    def entries(self) -> dict[str, dict[str, Any]]:
        """Name -> entry; {} without a manifest.

        Raises:
            ContsegError: the manifest is damaged.
        """
        try:
            if self.path.exists() and not self.path.is_file():
                raise ValueError("a pipe, which would be waited for, or a device")
            content = json.loads(self.path.read_text(encoding="utf-8"))
            files = content["files"]
            if content["sha256"] == _digest(files) and all(_is_entry(name, entry) for name, entry in files.items()):
                return files
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise ContsegError(
            f"{self.path}: damaged, or of another program; restore it, or move it away to read the files unchecked"
        )

    def _name(self, path: Path) -> str:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(self.folder)).as_posix()

    @contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The entries, written after the block."""
        with _alone(self.folder):
            files = self.entries()
            yield files
            text = json.dumps({"written_by": "contseg", "files": files, "sha256": _digest(files)}, indent=1)
            atomic.write_text(self.path, text)


def check_file(path: Path, advice: str = RESTORE) -> None:
    """Raise ContsegError if a file differs from its entry in the manifest of a folder above it. Other files pass.

    Args:
        advice: end of the error: what to do.

    Raises:
        ContsegError: the file or the manifest is damaged.
    """
    for folder in path.absolute().parents[:DEPTH]:
        if _is_ours(folder / NAME):
            Manifest(folder).check(path, advice)
            return


def _is_ours(path: Path) -> bool:
    """Whether a file is a manifest of contseg, damaged or not. Other programs have files of this name, too."""
    with suppress(OSError):
        return path.is_file() and b'"written_by": "contseg"' in path.read_bytes()
    return False


def _digest(files: dict[str, Any]) -> str:
    return sha256(json.dumps(files, sort_keys=True))


def _is_entry(name: str, entry: Any) -> bool:
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    return inside and isinstance(entry, dict) and "sha256" in entry


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, where the file system has locks; the system releases the lock of a killed process."""
    if os.name == "nt":  # folders cannot be opened
        yield
        return
    import fcntl

    file = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)

"""Output files: one that a command wrote is replaced, any other file is kept."""

from pathlib import Path

from contseg.atomic import writable, write_text
from contseg.errors import ContsegError

SEARCHED = 1 << 26
"""Bytes of a file that are searched for its mark."""


def require_replaceable(path: Path, mark: str, option: str = "--out") -> None:
    """Raise ContsegError if there is a file that is not an earlier output. Nothing is changed.

    Args:
        mark: a text in every output of this kind, and in no other file.
        option: the option that names the file, for the error.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.md"
        >>> _ = path.write_text("my notes")
        >>> require_replaceable(path, "| run |")
        Traceback (most recent call last):
        contseg.errors.ContsegError: .../table.md: exists, and contseg did not write it; choose another file with --out
    """
    if path.is_dir():
        raise ContsegError(f"{path}: is a folder; name a file in it with {option}")
    if not path.exists():
        return
    with path.open("rb") as file:
        if mark.encode() not in file.read(SEARCHED):
            raise ContsegError(f"{path}: exists, and contseg did not write it; choose another file with {option}")


def write_output(path: Path, text: str, mark: str, option: str = "--out") -> None:
    """Write a text file atomically, unless it would replace a file of the user; its folder is created if missing.

    Args:
        mark, option: see `require_replaceable`.

    Raises:
        ContsegError: the file exists and is no earlier output, or cannot be written.
    """
    require_replaceable(path, mark, option)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)

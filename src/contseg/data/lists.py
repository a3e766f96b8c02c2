"""Names of samples, from list files and from the folders of official layouts."""

import re
from collections.abc import Callable
from pathlib import Path

from contseg.data.listing import IMAGE_SUFFIXES
from contseg.errors import ContsegError


def files_like(folder: Path, pattern: str) -> list[Path]:
    """`Path.glob` without hidden files (`._a.jpg`), sorted by path: the files of an official layout."""
    found = folder.glob(pattern)
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def require_file(path: Path) -> None:
    """Raise ContsegError for a pipe, a socket or a device: reading it would wait, or never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ContsegError(f"{path}: a pipe, a socket or a device; give a file")


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        ContsegError: the file is not UTF-8, or no regular file.
    """
    require_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ContsegError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def read_list(path: Path) -> list[str]:
    """The non-empty lines of a text file, stripped.

    Raises:
        ContsegError: the file is missing or empty.
    """
    require_file(path)
    if not path.is_file():
        raise ContsegError(f"{path}: list not found; it should contain one name per line")
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise ContsegError(f"{path}: the list is empty; it should contain one name per line")
    return names


def without_ending(name: str) -> str:
    """A file name without its image suffix; other dots are part of the name.

    Example:
        >>> [without_ending(name) for name in ("street/a.JPG", "a.b.c", "a.b.png", "2007_000032")]
        ['street/a', 'a.b.c', 'a.b', '2007_000032']
    """
    rest, __, ending = name.rpartition(".")
    return rest if rest and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def read_names(path: Path, there: Callable[[str], bool] | None = None) -> list[str]:
    """Read the sample names of a list: one per line, with or without folder and image suffix.

    As in some code bases, a line may also have two paths, of image and mask
    (`/JPEGImages/x.jpg /SegmentationClassAug/x.png`).

    Args:
        there: whether a sample exists. Of a line with columns (`2007_000032 -1`), the first column is used if the whole
            line is not a sample and the first column is.

    Raises:
        ContsegError: the file is missing or empty.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "train.txt"
        >>> _ = path.write_text("a.b.c\\nJPEGImages/my photo.jpg Masks/my photo.png\\n")
        >>> read_names(path)
        ['a.b.c', 'my photo']
    """
    names = []
    for line in read_list(path):
        name, first = _name_of(_first_path(line)), _name_of(line.split()[0])
        names.append(first if there is not None and first != name and not there(name) and there(first) else name)
    return names


def _name_of(path: str) -> str:
    return without_ending(path.replace("\\", "/").rsplit("/", 1)[-1])


def _first_path(line: str) -> str:
    """The first of two paths, or the whole line if it is a single path (which may contain spaces)."""
    for gap in re.finditer(r"\s+", line):
        one, other = line[: gap.start()], line[gap.end() :]
        if all(without_ending(path) != path for path in (one, other)):
            return one
        if "/" in one and without_ending(Path(one).name) == without_ending(Path(other).name):
            return one
    return line

"""The files below a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from contseg.errors import ContsegError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def files_below(root: Path) -> list[Path]:
    """Every file below a folder, sorted by path; folders are never included, whatever their name.

    Linked folders are followed, each folder once, so that loops add nothing. Hidden files and folders (names that begin
    with a dot, such as `._a.jpg` and `.ipynb_checkpoints`) are skipped. Broken links are included, and get reported.

    Raises:
        ContsegError: a folder cannot be listed.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("b/2.png", "a.png", "b/._2.png", ".ipynb_checkpoints/a.png"):
        ...     (root / name).parent.mkdir(exist_ok=True)
        ...     (root / name).touch()
        >>> (root / "loop").symlink_to(root)
        >>> [path.relative_to(root).as_posix() for path in files_below(root)]
        ['a.png', 'b/2.png']
    """
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    real: list[Path] = [root]
    linked: list[Path] = []  # followed last, so that a folder keeps its own path if a link leads to it too
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            raise ContsegError(f"{folder}: cannot be listed ({error.strerror}); make it readable") from None
        for entry in entries:
            path = folder / entry.name
            if not _is_folder(entry):
                found.append(path)
            elif entry.is_symlink():
                linked.append(path)
            else:
                real.append(path)
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is neither a folder nor a file; opening it reports the error
        return False


def image_files(root: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files of `files_below` with one of these suffixes (lower case, with dot); case is ignored.

    Raises:
        ContsegError: a folder cannot be listed.
    """
    return [path for path in files_below(root) if path.suffix.lower() in suffixes]

"""Reading and writing image and mask files, with errors that name the file."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.data.classes import Colour
from contseg.errors import ContsegError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def files_below(root: Path) -> list[Path]:
    """Every file below a folder, sorted by path; folders are never among them, whatever they are called.

    Links to folders are followed, each folder once: a link back to a folder that was already visited, such as a loop, adds
    nothing. What is hidden is left out: files and folders whose name begins with a dot (`._a.jpg`, `.ipynb_checkpoints`).
    Broken links to files are among the files, so that they are reported and not lost.

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
    real, linked = [root], []  # a folder keeps its own path where a link leads to it too
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        try:
            stat = os.stat(folder)
            if (stat.st_dev, stat.st_ino) in visited:
                continue
            visited.add((stat.st_dev, stat.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            raise ContsegError(f"{folder}: cannot be listed ({error.strerror}); make it readable") from None
        for entry in entries:
            path = folder / entry.name
            if not entry.is_dir():
                found.append(path)
            elif entry.is_symlink():
                linked.append(path)
            else:
                real.append(path)
    return sorted(found)


def image_files(root: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files of `files_below` that end in one of these suffixes (lower case, with their dot), in any case.

    Raises:
        ContsegError: a folder cannot be listed.
    """
    return [path for path in files_below(root) if path.suffix.lower() in suffixes]


def files_like(folder: Path, pattern: str) -> list[Path]:
    """`Path.glob` without what is hidden (`._a.jpg`), sorted by path: the files of an official layout."""
    found = folder.glob(pattern)
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def read_image(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, read-only (the decoder's own memory; a writable copy costs as much again).

    Raises:
        ContsegError: the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except FileNotFoundError:
        raise ContsegError(f"{path}: image not found; check the list that names it") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ContsegError(f"{path}: cannot be read as an image ({error}); replace the file") from None


def read_mask(path: Path) -> np.ndarray:
    """A mask file as (H, W) uint8 or uint16 ids. Palette PNGs give their indices, never their colours.

    Raises:
        ContsegError: the file is missing, truncated, or its pixels are not single numbers (RGB).
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "I", "I;16", "1"):
                raise ContsegError(
                    f"{path}: mask has mode {image.mode}; masks must be single-channel ids (grey or palette PNG)"
                )
            mask = np.asarray(image)
    except FileNotFoundError:
        raise ContsegError(f"{path}: mask not found; every image needs one of the same name") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ContsegError(f"{path}: cannot be read as a mask ({error}); replace the file") from None
    if mask.dtype == np.uint8:
        return mask
    return mask.astype(np.uint8 if mask.dtype == bool else np.uint16)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding it.

    Raises:
        ContsegError: the file is missing or no image.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # half the time of a file object
        try:
            found = _size_in(os.read(handle, 4096))
        finally:
            os.close(handle)
        if found:
            return found
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise ContsegError(f"{path}: image not found; check the list that names it") from None
    except (OSError, SyntaxError) as error:
        raise ContsegError(f"{path}: cannot be read as an image ({error}); replace the file") from None


def _size_in(head: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG or PNG that begins like this, in a third of Pillow's time; None asks Pillow."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")
    at = 2 if head.startswith(b"\xff\xd8") else len(head)
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header, not a table
            height, width = int.from_bytes(head[at + 5 : at + 7], "big"), int.from_bytes(head[at + 7 : at + 9], "big")
            return (height, width) if height and width else None
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None


def write_palette_png(path: Path, ids: np.ndarray, colours: list[Colour]) -> None:
    """Write ids (H, W) uint8 as a palette PNG: viewers show `colours`, readers get the ids back."""
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette([channel for colour in colours for channel in colour])
    image.save(path)


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        ContsegError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ContsegError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def read_list(path: Path) -> list[str]:
    """The non-empty lines of a text file, stripped.

    Raises:
        ContsegError: the file is missing or empty.
    """
    if not path.is_file():
        raise ContsegError(f"{path}: list not found; it should hold one name per line")
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise ContsegError(f"{path}: the list is empty; it should hold one name per line")
    return names


def without_ending(name: str) -> str:
    """A file's name without the ending of an image; what follows another dot belongs to the name.

    Example:
        >>> [without_ending(name) for name in ("street/a.JPG", "a.b.c", "a.b.png", "2007_000032")]
        ['street/a', 'a.b.c', 'a.b', '2007_000032']
    """
    rest, _, ending = name.rpartition(".")
    return rest if rest and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def read_names(path: Path) -> list[str]:
    """The names of samples in a list: one a line, with or without folder and image ending.

    A line may also hold two paths, an image's and its mask's (`/JPEGImages/x.jpg /SegmentationClassAug/x.png`), as some code
    bases keep them.

    Raises:
        ContsegError: the file is missing or empty.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "train.txt"
        >>> _ = path.write_text("a.b.c\\nJPEGImages/my photo.jpg Masks/my photo.png\\n")
        >>> read_names(path)
        ['a.b.c', 'my photo']
    """
    return [without_ending(_first_path(line).replace("\\", "/").rsplit("/", 1)[-1]) for line in read_list(path)]


def _first_path(line: str) -> str:
    """The first of two paths, or the line where it holds one (which may have spaces in it)."""
    for gap in re.finditer(r"\s+", line):
        one, other = line[: gap.start()], line[gap.end() :]
        if all(without_ending(path) != path for path in (one, other)):
            return one
        if "/" in one and without_ending(Path(one).name) == without_ending(Path(other).name):
            return one
    return line

"""Input files of `contseg predict`, and the names of their results: no result is an input, no two have one name."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from contseg.cli.predict_record import KINDS, results_in
from contseg.data.listing import IMAGE_SUFFIXES, files_below
from contseg.errors import ContsegError

_CAMERA_SUFFIXES = {".heic", ".heif", ".jxl", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".svg"}
_VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}


def find_images(path: Path) -> tuple[list[Path], Counter[str]]:
    """The image at a path or all images below a folder, and the number of pictures in other formats, by suffix.

    Images are in natural order, folder by folder: frame 2 is before frame 10. Links to folders are followed; hidden files
    and the results of earlier predictions are skipped.

    Raises:
        ContsegError: the path does not exist or is a video, or there are no images.
    """
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        raise ContsegError(f"{path}: is a video; extract its frames to a folder: ffmpeg -i {path.name} frames/%06d.png")
    if path.is_file():
        return [path], Counter()
    if not path.is_dir():
        raise ContsegError(f"{path}: no such image or folder")
    files = files_below(path)
    results = _earlier_results(files, path)
    images = sorted(
        (file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file not in results), key=natural_order
    )
    skipped = Counter(file.suffix.lower() for file in files if _is_other_picture(file))
    if not images:
        other = f"; {skipped_text(skipped)}" if skipped else ""
        raise ContsegError(f"{path}: contains no images ({', '.join(IMAGE_SUFFIXES)}){other}")
    return images, skipped


def natural_order(path: Path) -> list[list[str | int]]:
    """A key by which numbers in names are sorted by value.

    Example:
        >>> names = ["b/1.png", "a/10.png", "a/9.png", "a/010.png"]
        >>> [path.as_posix() for path in sorted(map(Path, names), key=natural_order)]
        ['a/9.png', 'a/10.png', 'a/010.png', 'b/1.png']
    """
    words = (re.split(r"([0-9]+)", part) for part in path.parts)  # texts and numbers in turn
    return [[int(word) if place % 2 else word for place, word in enumerate(part)] for part in words]


def _is_other_picture(file: Path) -> bool:
    suffix = file.suffix.lower()
    known = suffix in _CAMERA_SUFFIXES | _VIDEO_SUFFIXES or suffix in Image.registered_extensions()
    return known and suffix not in IMAGE_SUFFIXES


def skipped_text(skipped: Counter[str]) -> str:
    """Such as `skipped 3 pictures of formats that are not read (.gif 2, .heic 1); convert them to PNG or JPEG`."""
    formats = ", ".join(f"{suffix} {count}" for suffix, count in sorted(skipped.items()))
    return f"skipped {skipped.total()} pictures of formats that are not read ({formats}); convert them to PNG or JPEG"


def _earlier_results(files: Sequence[Path], root: Path) -> set[Path]:
    """Earlier results below a folder: files that a record lists, or that are in all three folders under one name."""
    there, found = set(files), set()
    folders = {folder for file in files for folder in file.parents if folder.name in KINDS and root in folder.parents}
    for file in files:
        for folder in file.parents:
            if folder in folders:
                same = {folder.parent / kind / file.relative_to(folder) for kind in KINDS}
                found |= same if same <= there else set()
    for parent in {folder for file in files for folder in file.parents if root in (folder, *folder.parents)}:
        found |= results_in(parent).keys()
    return found & there


def result_names(images: Sequence[Path], root: Path, suffixes: Sequence[str]) -> list[Path]:
    """A unique name for the result of each image: `a.png` for `a.jpg`, but `a.jpg.png` and `a.tif.png` for two.

    Example:
        >>> images = [Path(name) for name in ("a.jpg", "b/a.tif", "b/a.png", "b/a.tif.bmp")]
        >>> [name.as_posix() for name in result_names(images, Path(), [".png"] * 4)]
        ['a.png', 'b/a.tif.png', 'b/a.png.png', 'b/a.tif.bmp.png']
    """
    paths = [path.relative_to(root) if path != root else Path(path.name) for path in images]
    short = [path.with_suffix(suffix) for path, suffix in zip(paths, suffixes, strict=True)]
    long = [path.with_name(path.name + suffix) for path, suffix in zip(paths, suffixes, strict=True)]
    alike = Counter(_folded(name) for name in short)
    names = [one if alike[_folded(one)] == 1 else other for one, other in zip(short, long, strict=True)]
    while True:  # the long name of one image may be the short name of another
        alike = Counter(_folded(name) for name in names)
        clash = [place for place, name in enumerate(names) if alike[_folded(name)] > 1 and name != long[place]]
        if not clash:
            return names
        for place in clash:
            names[place] = long[place]


def _folded(name: Path) -> str:
    """The name in a form that is equal for names that some file systems do not distinguish."""
    return name.as_posix().casefold()

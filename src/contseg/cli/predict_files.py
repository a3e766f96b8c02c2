"""Input and output files of `contseg predict`: no result is an input, no input is overwritten."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from contseg.atomic import write_text
from contseg.data.files import IMAGE_SUFFIXES, files_below
from contseg.data.lists import read_text
from contseg.errors import ContsegError

KINDS = ("ids", "colours", "overlays")
MARKER = ".contseg-predict.json"
"""File in the output folder with the names of all results that were written there."""
_CAMERA_SUFFIXES = {".heic", ".heif", ".jxl", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".svg"}


def find_images(path: Path) -> tuple[list[Path], Counter[str]]:
    """The image at a path or all images below a folder, and the number of pictures in other formats, by suffix.

    Links to folders are followed; hidden files and the results of earlier predictions are skipped.

    Raises:
        ContsegError: the path does not exist, or there are no images.
    """
    if path.is_file():
        return [path], Counter()
    if not path.is_dir():
        raise ContsegError(f"{path}: no such image or folder")
    files = files_below(path)
    results = _earlier_results(files, path)
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file not in results]
    skipped = Counter(file.suffix.lower() for file in files if _is_other_picture(file))
    if not images:
        other = f"; {skipped_text(skipped)}" if skipped else ""
        raise ContsegError(f"{path}: contains no images ({', '.join(IMAGE_SUFFIXES)}){other}")
    return images, skipped


def _is_other_picture(file: Path) -> bool:
    suffix = file.suffix.lower()
    return suffix not in IMAGE_SUFFIXES and (suffix in _CAMERA_SUFFIXES or suffix in Image.registered_extensions())


def skipped_text(skipped: Counter[str]) -> str:
    """Such as `skipped 3 pictures of formats that are not read (.gif 2, .heic 1); convert them to PNG or JPEG`."""
    formats = ", ".join(f"{suffix} {count}" for suffix, count in sorted(skipped.items()))
    return f"skipped {skipped.total()} pictures of formats that are not read ({formats}); convert them to PNG or JPEG"


def _earlier_results(files: Sequence[Path], root: Path) -> set[Path]:
    """Earlier results below a folder: files that a marker lists, or that are in all three folders under one name."""
    there, found = set(files), set()
    folders = {folder for file in files for folder in file.parents if folder.name in KINDS and root in folder.parents}
    for file in files:
        for folder in file.parents:
            if folder in folders:
                same = {folder.parent / kind / file.relative_to(folder) for kind in KINDS}
                found |= same if same <= there else set()
    for parent in {folder.parent for folder in folders}:
        found |= {parent / kind / name for kind in KINDS for name in read_marker(parent)}
    return found & there


def read_marker(folder: Path) -> set[str]:
    """The names of the results in a folder, relative to `ids/`."""
    marker = folder / MARKER
    if not marker.is_file():
        return set()
    try:
        names = json.loads(read_text(marker))
    except ValueError:
        return set()
    return {str(name) for name in names} if isinstance(names, list) else set()


def write_marker(folder: Path, names: Iterable[Path]) -> None:
    """Add names to the marker of a folder. Called before results are written, so that those of an interrupted command
    are recognised too.

    Raises:
        ContsegError: the folder cannot be written.
    """
    known = read_marker(folder) | {name.as_posix() for name in names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / MARKER, json.dumps(sorted(known), ensure_ascii=False))
    except OSError as error:
        raise ContsegError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from None


def result_names(images: Sequence[Path], root: Path) -> list[Path]:
    """A unique name relative to `ids/` for each image: `a.png` for `a.jpg`, but `a.jpg.png` and `a.tif.png` for two.

    Example:
        >>> images = [Path(name) for name in ("a.jpg", "b/a.tif", "b/a.png", "b/a.tif.bmp")]
        >>> [name.as_posix() for name in result_names(images, Path())]
        ['a.png', 'b/a.tif.png', 'b/a.png.png', 'b/a.tif.bmp.png']
    """
    paths = [path.relative_to(root) if path != root else Path(path.name) for path in images]
    short = [path.with_suffix(".png") for path in paths]
    long = [path.with_name(f"{path.name}.png") for path in paths]
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


def require_inputs_kept(images: Sequence[Path], out: Path, names: Iterable[Path]) -> None:
    """Check that no result overwrites an image.

    Raises:
        ContsegError: one would; nothing is written yet.
    """
    inputs = {image.resolve() for image in images}
    for name in names:
        for kind in KINDS:
            if (path := out / kind / name).resolve() in inputs:
                raise ContsegError(
                    f"{path}: is an image to predict and would be overwritten; choose another folder with --out"
                )

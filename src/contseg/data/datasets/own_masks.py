"""Masks of a user's folder: find the mask of an image, and read its values."""

import unicodedata
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from contseg.data.classes import Colour
from contseg.data.files import has_even_transparency, read_image, read_mask, stored_mode
from contseg.data.listing import IMAGE_SUFFIXES, files_below, image_files
from contseg.errors import ContsegError

_JPEG = (".jpg", ".jpeg")
MASK_SUFFIXES = (".png", *(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".png", *_JPEG)), ".gif", *_JPEG)
"""Suffixes of masks; of two masks with the same name, the earlier suffix is used."""


def sample_name(path: Path, root: Path) -> str:
    """The name of a sample: its path below `root` without suffix, in Unicode form NFC.

    Example:
        >>> sample_name(Path("images/cafe\\u0301/a.b.PNG"), Path("images")) == "caf\\u00e9/a.b"
        True
    """
    return unicodedata.normalize("NFC", path.relative_to(root).with_suffix("").as_posix())


def find_masks(folder: Path, images: Mapping[str, Path]) -> dict[str, Path]:
    """Find the mask of each image: `NAME.png`, NAME with another suffix, NAME_mask, or IMAGEFILE.png, in this order.

    Args:
        images: image file by sample name.
    """
    by_name: dict[str, list[Path]] = {}
    for path in image_files(folder, MASK_SUFFIXES):
        by_name.setdefault(sample_name(path, folder), []).append(path)
    masks = {}
    for name, image in images.items():
        choices = [name] + [other for other in (f"{name}_mask", name + image.suffix) if other not in images]
        found = [path for choice in choices for path in sorted(by_name.get(choice, []), key=_preference)]
        direct = folder / f"{name}.png"  # in a linked folder to which another link leads too
        if found or direct.is_file():
            masks[name] = found[0] if found else direct
    return masks


def _preference(path: Path) -> tuple[int, str]:
    return MASK_SUFFIXES.index(path.suffix.lower()), path.suffix


def missing_mask(folder: Path, name: str) -> ContsegError:
    """The error for an image without a mask: the expected file, and what was found instead."""
    expected = folder / f"{name}.png"
    there = [path.name for path in files_below(expected.parent)] if expected.parent.is_dir() else []
    stem = expected.stem
    near = [file for file in there if file.startswith(stem)] or get_close_matches(f"{stem}.png", there, n=3, cutoff=0.7)
    if near:
        nearby = f"found {', '.join(near[:3])}"
    else:
        nearby = f"{expected.parent.name}/ has {len(there)} other files" + (f", such as {there[0]}" if there else "")
    return ContsegError(
        f"{expected}: mask not found; every image needs one of the same name (.tif, .bmp or NAME_mask.png too); {nearby}"
    )


def read_values(path: Path, colours: Mapping[Colour, int], palette_colours: bool = False) -> np.ndarray:
    """Read the mask values of a file, (H, W) uint8 or uint16: one number per pixel, the same number in three channels, or
    colours.

    Args:
        colours: value of each colour, for masks in colours; empty if none is known.
        palette_colours: read a palette mask by its colours instead of its indices, if all colours in use are known.

    Raises:
        ContsegError: the file is missing or unreadable, a JPEG, or has an unknown colour.
    """
    mode, kind = stored_mode(path)
    if kind == "JPEG":
        raise ContsegError(f"{path}: mask is a JPEG, whose compression changes values near edges; export masks as PNG")
    if mode == "P" and palette_colours and colours:
        values = _values_of(read_image(path), colours)
        return read_mask(path) if values is None else values
    if mode not in ("RGB", "RGBA", "LA"):
        return read_mask(path)
    pixels = read_image(path)
    if mode != "RGB" and not has_even_transparency(path):
        raise ContsegError(f"{path}: mask has mode {mode} with varying transparency; export it without transparency")
    if colours and (values := _values_of(pixels, colours)) is not None:
        return values
    first = pixels[:, :, 0]
    if np.array_equal(first, pixels[:, :, 1]) and np.array_equal(first, pixels[:, :, 2]):
        return np.ascontiguousarray(first)
    raise ContsegError(_unknown_colours(path, pixels, colours))


def _codes(pixels: np.ndarray) -> np.ndarray:
    """(H, W) uint32, one number per colour."""
    wide = pixels.astype(np.uint32)
    return wide[:, :, 0] << 16 | wide[:, :, 1] << 8 | wide[:, :, 2]


def _values_of(pixels: np.ndarray, colours: Mapping[Colour, int]) -> np.ndarray | None:
    """The value of every pixel's colour; None if a colour is unknown."""
    order = sorted(colours)
    known = _codes(np.array([order], dtype=np.uint8))[0]
    codes = _codes(pixels)
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    if not np.array_equal(known[places], codes):
        return None
    values = np.array([colours[colour] for colour in order])
    return values.astype(np.uint8 if values.max() < 256 else np.uint16)[places]


def _unknown_colours(path: Path, pixels: np.ndarray, colours: Mapping[Colour, int]) -> str:
    """The error text for a mask with unknown colours."""
    codes, counts = np.unique(_codes(pixels), return_counts=True)
    known = {red << 16 | green << 8 | blue for red, green, blue in colours}
    strange = [(int(count), int(code)) for code, count in zip(codes, counts, strict=True) if int(code) not in known]
    strange.sort(reverse=True)
    listed = ", ".join(f"[{code >> 16}, {code >> 8 & 255}, {code & 255}] ({count} pixels)" for count, code in strange[:3])
    more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
    if colours:
        return f"{path}: mask has colours of no class: {listed}{more}; add them to the class list or repaint them"
    return (
        f"{path}: mask has mode RGB with the colours {listed}{more}; masks must be single-channel ids, or classes.yaml must"
        " list the colour of every class ({id: 1, name: car, colour: [0, 0, 142]})"
    )

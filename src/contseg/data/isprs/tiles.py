"""The official ISPRS tiles: names and order, files, and the numbers of their patches."""

import filecmp
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contseg.data.dataset import SubsetName, require_folder
from contseg.data.datasets.isprs import VAIHINGEN_FROM
from contseg.errors import ContsegError, did_you_mean

Domain = Literal["potsdam", "vaihingen"]

OFFICIAL: dict[Domain, dict[SubsetName, tuple[str, ...]]] = {
    "potsdam": {
        "train": (
            "2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12", "5_10", "5_11", "5_12",
            "6_7", "6_8", "6_9", "6_10", "6_11", "6_12", "7_7", "7_8", "7_9", "7_10", "7_11", "7_12",
        ),
        "test": (
            "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13",
        ),
    },
    "vaihingen": {
        "train": tuple(f"area{number}" for number in (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)),
        "test": tuple(f"area{number}" for number in (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)),
    },
}  # fmt: skip
"""Tiles of the contest in the order in which patches are numbered: training first.

The published lists of Potsdam leave out the numbers 01201 to 01300, one whole tile. It is probably the faulty one
(`FAULTY`), but the lists do not show it: in this order the faulty tile has the numbers 02101 to 02200 and 01201 is 6_7; with
file names sorted as text, 01201 would be 6_10 and the faulty tile 01801. The lists of Vaihingen have 272 and 256 patches,
cut by an unpublished rule; ours gives other counts.
"""

FAULTY = "7_10"
"""The Potsdam tile whose annotation is wrong in large parts."""

_FIRST = {"potsdam": 1, "vaihingen": VAIHINGEN_FROM}
_LAST = {"potsdam": VAIHINGEN_FROM - 2, "vaihingen": 99999}
_FILES = {
    "potsdam": re.compile(r"top_potsdam_0?(\d+)_0?(\d+)_(rgb|label)\.tiff?", re.IGNORECASE),
    "vaihingen": re.compile(r"top_mosaic_09cm_area(\d+)\.tiff?", re.IGNORECASE),
}
_LABEL_FOLDER = re.compile(r"^(gts?|labels?)(?![a-z])|ground_?truth", re.IGNORECASE)


@dataclass(frozen=True)
class Tile:
    """One official tile; missing files are None."""

    domain: Domain
    name: str
    subset: SubsetName
    image: Path | None
    label: Path | None

    def absent(self) -> list[str]:
        """Its missing files, one line each."""
        kinds = (("image", self.image, "RGB"), ("label", self.label, "label"))
        file = {kind: self._file(suffix) for kind, _, suffix in kinds}
        return [f"{self.domain} tile {self.name}: {kind} {file[kind]} not found" for kind, path, _ in kinds if path is None]

    def _file(self, suffix: str) -> str:
        return f"top_potsdam_{self.name}_{suffix}.tif" if self.domain == "potsdam" else f"top_mosaic_09cm_{self.name}.tif"


@dataclass(frozen=True)
class Numbered:
    """A complete tile, with the number of its first patch.

    Args:
        height, width: of image and label, in pixels.
    """

    tile: Tile
    first: int
    height: int
    width: int

    def windows(self, patch: int) -> list[tuple[int, int, int]]:
        """(number, top, left) of every patch, row by row."""
        places = [(top, left) for top in starts(self.height, patch) for left in starts(self.width, patch)]
        return [(self.first + index, top, left) for index, (top, left) in enumerate(places)]


def find_tiles(domain: Domain, folder: Path) -> list[Tile]:
    """All official tiles of a domain, in order, with their files anywhere below `folder`.

    A Vaihingen image and its label have the same name; the label is in a folder such as `gts_for_participants`,
    `gt`, `labels` or `..._ground_truth_COMPLETE`.

    Raises:
        ContsegError: the folder is missing or contains no tile, or a file occurs twice with different content.
    """
    require_folder(folder, f"the official tiles of {domain.capitalize()}")
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        match = _FILES[domain].fullmatch(path.name)
        if match is None:
            continue
        if domain == "potsdam":
            key = (f"{match[1]}_{match[2]}", "label" if match[3].lower() == "label" else "image")
        else:
            parents = path.relative_to(folder).parts[:-1]
            key = (f"area{match[1]}", "label" if any(_LABEL_FOLDER.search(part) for part in parents) else "image")
        if key in found and not filecmp.cmp(found[key], path, shallow=False):
            raise ContsegError(f"{path}: differs from {found[key]}, which has the same name; leave only one in the folder")
        found.setdefault(key, path)
    if not found:
        kind = "top_potsdam_2_10_RGB.tif" if domain == "potsdam" else "top_mosaic_09cm_area1.tif"
        raise ContsegError(f"{folder}: contains no tiles of {domain.capitalize()}; expected files such as {kind}")
    return [
        Tile(domain, name, subset, found.get((name, "image")), found.get((name, "label")))
        for subset, names in OFFICIAL[domain].items()
        for name in names
    ]


def left_out(domains: Collection[Domain], skip: Sequence[str], keep_faulty: bool) -> set[str]:
    """Names of the tiles to leave out: those in `skip`, and `FAULTY` unless `keep_faulty`.

    Raises:
        ContsegError: a tile does not exist.

    Example:
        >>> left_out(["potsdam"], [], keep_faulty=False)
        {'7_10'}
    """
    known = [name for domain in domains for names in OFFICIAL[domain].values() for name in names]
    for name in skip:
        if name not in known:
            raise ContsegError(f"--skip-tile: there is no tile '{name}'; {did_you_mean(name, known)}")
    return {*skip, *([FAULTY] if "potsdam" in domains and not keep_faulty else [])}


def number_tiles(domain: Domain, tiles: Sequence[Tile], skip: Collection[str], patch: int) -> list[Numbered]:
    """The tiles to cut, with the numbers of their patches.

    Tiles that are left out keep their numbers, so that no other number changes: Potsdam's 38 tiles of 6000x6000 give
    patches of 600 the numbers 00001 to 03800, training up to 02400. Vaihingen's tiles differ in size, so a tile that is
    left out only keeps its numbers if its image exists.

    Raises:
        ContsegError: a file cannot be read, image and label differ in size, tiles of Potsdam differ in size, a tile is
            smaller than a patch, or there are more patches than numbers.
    """
    sizes = {tile.name: _tile_size(tile, tile.name in skip) for tile in tiles}
    given = {name: size for name, size in sizes.items() if size is not None}
    common: tuple[int, int] | None = None
    if domain == "potsdam" and given:
        common = next(iter(given.values()))
        other = next((tile for tile in tiles if given.get(tile.name, common) != common), None)
        if other is not None:
            height, width = given[other.name]
            raise ContsegError(
                f"{other.image}: is {width}x{height}, other tiles are {common[1]}x{common[0]}; Potsdam has tiles of one size"
            )
    numbered, number = [], _FIRST[domain]
    for tile in tiles:
        size = common or given.get(tile.name)
        if size is None:
            continue
        if min(size) < patch:
            raise ContsegError(
                f"{tile.image}: is {size[1]}x{size[0]}, smaller than a patch; choose --patch {min(size)} or less"
            )
        if not tile.absent() and tile.name not in skip:
            numbered.append(Numbered(tile, number, *size))
        number += len(starts(size[0], patch)) * len(starts(size[1], patch))
    if number - 1 > _LAST[domain]:
        raise ContsegError(
            f"--patch {patch}: gives {domain.capitalize()} the numbers {_FIRST[domain]} to {number - 1}, but only those up"
            f" to {_LAST[domain]} are its own; choose larger patches"
        )
    return numbered


def starts(length: int, patch: int) -> list[int]:
    """The first pixels of the patches along one side: adjacent, the last one moved back to end with the tile.

    Example:
        >>> starts(1800, 600), starts(1900, 600)
        ([0, 600, 1200], [0, 600, 1200, 1300])
    """
    firsts = list(range(0, length - patch + 1, patch))
    return firsts if firsts and firsts[-1] == length - patch else [*firsts, length - patch]


def raster_tools() -> Any:
    """The module `rasterio`.

    Raises:
        ContsegError: rasterio is not installed (extra `geo`).
    """
    try:
        import rasterio
    except ImportError:
        raise ContsegError("rasterio is missing, which is needed to read the tiles; pip install contseg[geo]") from None
    return rasterio


def _tile_size(tile: Tile, skipped: bool) -> tuple[int, int] | None:
    """(height, width); None if the image is missing."""
    if tile.image is None:
        return None
    size = raster_size(tile.image)
    if tile.label is not None and not skipped and raster_size(tile.label) != size:
        height, width = raster_size(tile.label)
        raise ContsegError(f"{tile.label}: is {width}x{height} but its image is {size[1]}x{size[0]}; they must be equal")
    return size


def raster_size(path: Path) -> tuple[int, int]:
    """(height, width) of a raster of three bands or more, 8 bits each.

    Raises:
        ContsegError: the file cannot be read, or has other bands.
    """
    rasterio = raster_tools()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            raster = rasterio.open(path)
        with raster:
            if raster.count < 3 or set(raster.dtypes[:3]) != {"uint8"}:
                raise ContsegError(f"{path}: has {raster.count} bands of {raster.dtypes[0]}; expected three of 8 bits")
            return raster.height, raster.width
    except rasterio.errors.RasterioError as error:
        raise ContsegError(f"{path}: cannot be read as a raster ({' '.join(str(error).split())})") from None

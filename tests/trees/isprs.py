"""ISPRS: prepared patches, and official tiles to prepare them from, with few pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from contseg.data.datasets.isprs import CLASSES, ISPRS
from contseg.data.isprs.tiles import OFFICIAL

COLOURS = np.array(list(CLASSES.values()), dtype=np.uint8)
SIZE = (24, 30)
TRAINING, VALIDATION = (1, 2, 10001, 10002), (2401, 10273)


def write_patch(root: Path, folder: str, number: int, values: Sequence[int] = range(6)) -> None:
    """One patch whose annotation holds all of these values."""
    rng = np.random.default_rng(number)
    mask = rng.choice(np.array(values, dtype=np.uint8), SIZE)
    mask[0, : len(values)] = values
    for kind, pixels in (("images", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)), ("annotations", mask)):
        path = root / kind / folder / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def isprs(root: Path) -> ISPRS:
    for folder, numbers in (("training", TRAINING), ("validation", VALIDATION)):
        for number in numbers:
            write_patch(root, folder, number)
    return ISPRS(root)


def write_raster(path: Path, pixels: np.ndarray) -> None:
    """An array (H, W, bands) as GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = pixels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(0.09, 0, 0, 0, -0.09, 0)) as raster:
        raster.write(np.moveaxis(pixels, -1, 0))


def tile_pixels(name: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and class numbers (H, W) of a tile, a function of its name."""
    rng = np.random.default_rng(sum(name.encode()))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 6, (height, width), dtype=np.uint8)


def potsdam_files(root: Path, name: str) -> tuple[Path, Path]:
    """Where image and label of a tile of Potsdam lie when the parts of the download are unpacked side by side."""
    image = root / "2_Ortho_RGB" / f"top_potsdam_{name}_RGB.tif"
    return image, root / "5_Labels_all" / f"top_potsdam_{name}_label.tif"


def vaihingen_files(root: Path, name: str) -> tuple[Path, Path]:
    file = f"top_mosaic_09cm_{name}.tif"
    return root / "ISPRS_semantic_labeling_Vaihingen" / "top" / file, root / "gts_for_participants" / file


def write_potsdam(root: Path, size: int = 120) -> Path:
    for name in (name for names in OFFICIAL["potsdam"].values() for name in names):
        _write_tile(potsdam_files(root, name), name, size, size)
    return root


def write_vaihingen(root: Path) -> Path:
    """Tiles of 120x100, the first of 130x100."""
    for number, name in enumerate(name for names in OFFICIAL["vaihingen"].values() for name in names):
        _write_tile(vaihingen_files(root, name), name, 100, 120 if number else 130)
    return root


def _write_tile(files: tuple[Path, Path], name: str, height: int, width: int) -> None:
    image, ids = tile_pixels(name, height, width)
    write_raster(files[0], image)
    write_raster(files[1], COLOURS[ids])

"""The pixel layout in the header of a TIFF: bands, bits and type. Pillow reads only some combinations."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from contseg.data.pixels import CHOOSE_BANDS
from contseg.errors import ContsegError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277
_SUBFILE, _EXTRA, _FORMAT = 254, 338, 339
_GEOREFERENCE = (33550, 33922, 34264, 34735, 42113)
"""Tags of GeoTIFF (scale, tie points, transform, coordinate system), and GDAL's nodata value."""
_REDUCED_OR_MASK = 0b101
_MOST_PAGES = 10_000
_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}
_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True)
class TiffLayout:
    """The layout of the first page of a TIFF.

    Args:
        height, width: as stored, before `orientation`.
        orientation: 1 to 8, as in EXIF.
        bands: values per pixel.
        colours: number of bands declared as colours; the others are extra bands.
        bits: bits per value, the maximum over the bands.
        kind: `u` unsigned, `i` signed, `f` float; empty for other types (complex numbers).
        alpha: whether the only extra band is declared as alpha.
        inverted: whether 0 is white.
        pages: images in the file, without smaller copies (overviews, thumbnails) and masks.
        georeferenced: whether there are tags of GeoTIFF or a nodata value.
    """

    height: int
    width: int
    orientation: int
    bands: int
    colours: int
    bits: int
    kind: str
    alpha: bool
    inverted: bool
    pages: int
    georeferenced: bool

    @property
    def plain(self) -> bool:
        """Whether there are only colours (or grey) of at most 8 bits."""
        return self.bits <= 8 and self.kind == "u" and self.bands == self.colours

    @property
    def type(self) -> str:
        """The type of the values, such as `uint16`."""
        return {"u": f"uint{self.bits}", "i": f"int{self.bits}", "f": f"float{self.bits}"}.get(self.kind, "complex")


def tiff_layout(file: IO[bytes]) -> TiffLayout:
    """The layout of an open TIFF file; moves its position.

    Raises:
        SyntaxError: the file is not a TIFF, or its header is broken.
    """
    try:
        return _layout(file)
    except Exception as error:  # Pillow's tag reader raises many kinds on garbage
        raise SyntaxError(f"broken TIFF header: {error or type(error).__name__}") from None


def read_raster(path: Path, bands: Sequence[int] = ()) -> np.ndarray:
    """Read bands (H, W, C) of a TIFF as stored, for layouts that Pillow does not read.

    Args:
        bands: their numbers, from 1; empty: all. Others take no memory.

    Raises:
        ContsegError: rasterio is not installed (extra `geo`), or the file has no such band.
        OSError: the file cannot be read.
    """
    try:
        import rasterio
    except ModuleNotFoundError:
        raise ContsegError(
            f"{path}: this kind of TIFF is read by rasterio, which is missing; pip install contseg[geo]"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path.absolute(), driver="GTiff") as raster:  # a relative `http:/a.tif` is an address for GDAL
                if bands and max(bands) > raster.count:
                    raise ContsegError(f"{path}: has {raster.count} bands, no band {max(bands)}; {CHOOSE_BANDS}")
                return np.moveaxis(raster.read(list(bands) or None), 0, 2)
    except rasterio.errors.RasterioError as error:
        raise OSError(str(error)) from None


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or mirror stored values (H, W, C) by their EXIF orientation (1 to 8).

    Example:
        >>> turned(np.array([[[1], [2], [3]]]), 6)[..., 0].tolist()
        [[1], [2], [3]]
    """
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def is_transparency(band: np.ndarray) -> bool:
    """Whether a band (H, W) uint8 is a transparency: 0 or 255 only, unlike infrared, heights and the like.

    Example:
        >>> is_transparency(np.array([[0, 255]], np.uint8)), is_transparency(np.array([[9, 255]], np.uint8))
        (True, False)
    """
    return bool(np.isin(np.flatnonzero(np.bincount(band.ravel(), minlength=256)), (0, 255)).all())


def _layout(file: IO[bytes]) -> TiffLayout:
    file.seek(0)
    header = file.read(8)
    if header[2:3] == b"+":
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    photometric = tags.get(_PHOTOMETRIC, 1)
    bits = _numbers(tags.get(_BITS, (1,)))
    bands = int(tags.get(_SAMPLES, _COLOURS.get(photometric, 1)))
    extra = _numbers(tags.get(_EXTRA, ()))
    colours = min(_COLOURS.get(photometric, 1), bands)
    if bands == 3 and photometric in (0, 1):  # GDAL writes three bands of 16 bits as grey and two more
        colours = 3
    kinds = {_KINDS.get(one, "") for one in _numbers(tags.get(_FORMAT, (1,)))}
    return TiffLayout(
        height=int(tags[_HEIGHT]),
        width=int(tags[_WIDTH]),
        orientation=int(tags.get(_ORIENTATION, 1)),
        bands=bands,
        colours=colours,
        bits=max(bits),
        kind=kinds.pop() if len(kinds) == 1 else "",
        alpha=bands == colours + 1 and extra in ((1,), (2,)),
        inverted=photometric == 0,
        pages=_pages(tags, header, file),
        georeferenced=any(tag in tags for tag in _GEOREFERENCE),
    )


def _pages(first: ImageFileDirectory_v2, header: bytes, file: IO[bytes]) -> int:
    """Count the images of a file, whose chain of directories may be damaged or circular."""
    seen: set[int] = set()
    count, place = 1, first.next
    while place and place not in seen and len(seen) < _MOST_PAGES:
        seen.add(place)
        tags = ImageFileDirectory_v2(header)
        file.seek(place)
        try:
            tags.load(file)
        except Exception:  # what follows the first page is not needed to read it
            break
        count += not int(tags.get(_SUBFILE, 0)) & _REDUCED_OR_MASK
        place = tags.next
    return count


def _numbers(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)

"""GeoTIFFs of any size, read and written in windows by rasterio (extra `geo`).

The EXIF orientation of a GeoTIFF is not applied: GIS programs ignore it, and its transform is that of the stored pixels.
"""

import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from contseg.atomic import atomic_file, write_text
from contseg.data.classes import IGNORE, ClassTable
from contseg.data.pixels import CHOOSE_BANDS, Reading, full_range, rescale
from contseg.data.tiff import SIGNATURES, tiff_layout
from contseg.errors import ContsegError

LARGE = 2**24
"""Pixels above which a TIFF is read in windows even if it is not georeferenced."""
_CACHE = 64 * 2**20
"""Bytes of GDAL's cache of blocks; its default is 5 % of the memory of the machine."""
_PREVIEW = 1024
"""Maximum side of the reduced copy in which values are checked before anything is predicted."""
_WORLD_FILES = (".tfw", ".tifw", ".tiffw", ".wld")

Write = Callable[[slice, slice, np.ndarray], None]
"""Writes ids (h, w) to a window: (rows, columns, ids)."""


def is_raster(path: Path) -> bool:
    """Whether a file is a TIFF with a georeference or a nodata value, or with more than `LARGE` pixels."""
    if not path.is_file():  # a pipe, for which `open` would wait; `read_image` reports it
        return False
    try:
        with open(path, "rb") as file:
            if not file.read(4).startswith(SIGNATURES):
                return False
            layout = tiff_layout(file)
    except (OSError, SyntaxError):  # `read_image` reports it
        return False
    world_file = any(path.with_suffix(suffix).is_file() for suffix in _WORLD_FILES)
    return layout.georeferenced or world_file or layout.height * layout.width > LARGE


class Raster:
    """A GeoTIFF as 8-bit RGB, read in windows: a context manager.

    Without `reading`, grey, RGB and palettes are read as they are, and transparency is a mask. Other bands and values
    without a range are refused, like in `read_image`; this is checked in a reduced copy before anything is predicted.

    Args:
        reading: choice of bands, and range of values.

    Attributes:
        size: (height, width).
        georeferenced: whether there is a coordinate reference system.

    Raises:
        ContsegError: rasterio is missing, or the file is damaged, or ambiguous with this `reading`.
    """

    def __init__(self, path: Path, reading: Reading):
        self.path, self._reading = path, reading
        self._env = _rasterio(path).Env(GDAL_CACHEMAX=_CACHE)

    def __enter__(self) -> Self:
        self._env.__enter__()
        try:
            self._open()
        except BaseException:
            self._env.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._env.__exit__(kind, error, traceback)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The pixels of a window, (h, w, 3) uint8 RGB; black where there is no data.

        Raises:
            ContsegError: the file is damaged, or values are outside the range of their type.
        """
        return self._rgb(self._values(window=(rows, columns)), self.valid(rows, columns))

    def valid(self, rows: slice, columns: slice) -> np.ndarray:
        """Which pixels of a window have data, (h, w) bool: in any of the chosen bands.

        By nodata value, mask or transparency; NaN is no data.

        Raises:
            ContsegError: the file is damaged.
        """
        return self._valid(window=(rows, columns))

    @property
    def georeference(self) -> dict[str, Any]:
        """Arguments of `rasterio.open` that give another raster of the same size the same place on Earth."""
        points, system = self._file.gcps
        found = {"gcps": points, "crs": system} if points else {"crs": self._file.crs, "transform": self._file.transform}
        return {key: value for key, value in (found | {"rpcs": self._file.rpcs}).items() if value is not None}

    @property
    def tags(self) -> dict[str, str]:
        """Tags that belong to the georeference."""
        return {key: value for key, value in self._file.tags().items() if key == "AREA_OR_POINT"}

    def _open(self) -> None:
        rasterio = _rasterio(self.path)
        with self._readable(), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            self._file = file = rasterio.open(self.path.absolute(), driver="GTiff")
        try:
            kind = np.dtype(file.dtypes[0])
            if len(set(file.dtypes)) > 1 or kind.kind not in "uif":
                raise ContsegError(f"{self.path}: has values of type {', '.join(file.dtypes)}, which no image has")
            if file.subdatasets:
                raise ContsegError(f"{self.path}: has {len(file.subdatasets)} frames; save each as a file of its own")
            self.size: tuple[int, int] = file.height, file.width
            self.georeferenced = file.crs is not None or bool(file.gcps[0])
            self._default = full_range(kind.kind, 8 * kind.itemsize)
            self._choose_bands()
            scale = max(1, *(side / _PREVIEW for side in self.size))
            shape = tuple(max(1, int(side / scale)) for side in self.size)
            self._rgb(self._values(out_shape=shape), self._valid(out_shape=shape))
        except BaseException:
            file.close()
            raise

    def _choose_bands(self) -> None:
        """Set the bands that are read, their palette, and whether all pixels have data whatever GDAL assumes."""
        file = self._file
        meanings = [meaning.name for meaning in file.colorinterp]
        transparent = meanings.index("alpha") + 1 if "alpha" in meanings else None
        self._all_valid = False
        if transparent is not None and not self._is_transparency(transparent):
            transparent, self._all_valid = None, file.nodata is None  # infrared that is declared as transparency
        colours = [band for band in file.indexes if band != transparent]
        if not self._reading.bands and len(colours) not in (1, 3):
            raise ContsegError(f"{self.path}: has {file.count} bands of {file.dtypes[0]}; {CHOOSE_BANDS}")
        self._bands = list(self._reading.bands or colours)
        if max(self._bands) > file.count:
            raise ContsegError(f"{self.path}: has {file.count} bands, no band {max(self._bands)}; {CHOOSE_BANDS}")
        self._palette = None
        if meanings[0] == "palette" and self._reading == Reading():
            self._palette = np.zeros((2**16, 3), np.uint8)
            for value, colour in file.colormap(1).items():
                self._palette[value] = colour[:3]

    def _is_transparency(self, band: int) -> bool:
        shape = tuple(min(side, _PREVIEW) for side in self._file.shape)
        with self._readable():
            values = np.unique(self._file.read(band, out_shape=shape))
        return bool(np.isin(values, (0, 255, *(self._default or ()))).all())

    def _values(self, **options: Any) -> np.ndarray:
        """Values of the bands, (C, h, w)."""
        with self._readable():
            return self._file.read(self._bands, **options)

    def _valid(self, **options: Any) -> np.ndarray:
        with self._readable():
            valid = self._file.read_masks(self._bands, **options).any(axis=0)
            if self._file.dtypes[0].startswith("float"):
                return valid & ~np.isnan(self._file.read(self._bands, **options)).all(axis=0)
        return np.ones_like(valid) if self._all_valid else valid

    def _rgb(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        values[:, ~valid] = 0  # not a number that is outside the range
        if self._palette is not None:
            rgb = self._palette[values[0]]
        else:
            try:
                rgb = rescale(np.moveaxis(values, 0, 2), self._reading.range, self._default)
            except ContsegError as error:
                raise ContsegError(f"{self.path}: {error}") from None
        rgb[~valid] = 0
        return rgb

    @contextmanager
    def _readable(self) -> Iterator[None]:
        rasterio = _rasterio(self.path)
        try:
            yield
        except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError) as error:
            raise ContsegError(f"{self.path}: cannot be read as an image ({_reason(error)}); replace the file") from None


@contextmanager
def write_raster(path: Path, size: tuple[int, int], classes: ClassTable, like: Raster | None = None) -> Iterator[Write]:
    """Write ids as a GeoTIFF, tiled and compressed, that GIS programs show in the colours and with the names of the classes.

    The block calls the yielded function for each window. The file appears when it is complete, with overviews. 255 is its
    nodata value. Names are in tags of its band, `CLASS_7=cat`, and as categories in `NAME.tif.aux.xml`.

    Args:
        size: (height, width).
        classes: ids, names and colours; ids above 255 make a file of 16 bits.
        like: a raster of the same size whose georeference is kept.

    Raises:
        ContsegError: rasterio is missing.
        OSError: the file cannot be written.
    """
    rasterio = _rasterio(path)
    kind = np.uint8 if max(classes.ids) < 256 else np.uint16
    options = {"compress": "deflate", "tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "if_safer"}
    place = like.georeference if like is not None else {}
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE), warnings.catch_warnings(), atomic_file(path) as partial:
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            shape = {"height": size[0], "width": size[1], "count": 1, "dtype": kind, "nodata": IGNORE}
            with rasterio.open(partial, "w", driver="GTiff", **shape, **options, **place) as file:
                file.write_colormap(1, dict(zip(classes.ids, classes.colours, strict=True)))
                file.set_band_description(1, "class")
                file.update_tags(1, **{f"CLASS_{number}": name for number, name in _rows(classes)})
                file.update_tags(**(like.tags if like is not None else {}))
                yield lambda rows, columns, ids: file.write(ids.astype(kind), 1, window=(rows, columns))
            with rasterio.open(partial, "r+") as file:
                file.build_overviews(_factors(size), rasterio.enums.Resampling.nearest)
                file.checksum(1)  # reads every block: a full disk is not always reported when blocks are written
        write_text(path.with_name(f"{path.name}.aux.xml"), _categories(classes))
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError) as error:
        raise OSError(f"{_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What GDAL reported, in one line."""
    return " ".join(str(error.__cause__ or error).split())


def _rows(classes: ClassTable) -> list[tuple[int, str]]:
    return list(zip(classes.ids, classes.names, strict=True))


def _factors(size: tuple[int, int]) -> list[int]:
    return [2**power for power in range(1, 16) if max(size) / 2**power >= 512]


def _categories(classes: ClassTable) -> str:
    """GDAL's auxiliary metadata with the names of the classes, in the order of their ids."""
    names = dict(_rows(classes))
    root = ElementTree.Element("PAMDataset")
    categories = ElementTree.SubElement(ElementTree.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for number in range(max(names) + 1):
        ElementTree.SubElement(categories, "Category").text = names.get(number, "")
    return ElementTree.tostring(root, encoding="unicode")


def _rasterio(path: Path) -> Any:
    try:
        import rasterio._err
        import rasterio.enums
        import rasterio.errors
    except ModuleNotFoundError:
        raise ContsegError(
            f"{path}: GeoTIFF is read and written by rasterio, which is missing; pip install contseg[geo]"
        ) from None
    return rasterio

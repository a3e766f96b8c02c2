"""The files that `contseg predict` writes, by format."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.cli.predict_files import KINDS
from contseg.data.classes import IGNORE, ClassTable, Colour
from contseg.data.files import write_palette_png
from contseg.data.rasters import Raster, write_raster
from contseg.errors import ContsegError
from contseg.evaluation.tiles import Part, Photo


class Format(ABC):
    """How predictions are written.

    Args:
        out: the output folder.
        classes: the classes of the segmenter.

    Attributes:
        suffix: of the name of a result.

    Raises:
        ContsegError: the ids of the classes do not fit this format.
    """

    suffix = ".png"

    def __init__(self, out: Path, classes: ClassTable):
        self.out, self.classes = out, classes

    @abstractmethod
    def paths(self, name: Path) -> list[Path]:
        """The files of a result."""

    @abstractmethod
    def write(self, path: Path, name: Path, image: Photo | Raster, parts: Iterable[Part]) -> None:
        """Write the result of an image.

        Args:
            path: the file of the image.
            name: the name of the result, see `result_names`.
            parts: ids of the classes in each part of the image; 255 where it has no data.

        Raises:
            OSError: a file cannot be written.
        """

    def finish(self) -> None:
        """Write what belongs to all images.

        Raises:
            OSError: a file cannot be written.
        """


class PNG(Format):
    """`ids/NAME.png` (ids of the dataset), `colours/NAME.png` and `overlays/NAME.png`."""

    def __init__(self, out: Path, classes: ClassTable):
        super().__init__(out, classes)
        require_8_bits(classes, "png")
        self.palette = palette_of(classes)

    def paths(self, name: Path) -> list[Path]:
        return [self.out / kind / name for kind in KINDS]

    def write(self, path: Path, name: Path, image: Photo | Raster, parts: Iterable[Part]) -> None:
        ids, files = assembled(image, parts), self.paths(name)
        colours = np.array(self.palette, dtype=np.uint8)[ids]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        write_palette_png(files[0], ids, self.palette)
        Image.fromarray(colours).save(files[1])
        pixels = image.read(slice(0, ids.shape[0]), slice(0, ids.shape[1]))
        Image.fromarray(overlay(pixels, colours, (ids > 0) & (ids != IGNORE))).save(files[2])


class GeoTIFF(Format):
    """`ids/NAME.tif` with the georeference of the image; never in memory as a whole."""

    suffix = ".tif"

    def paths(self, name: Path) -> list[Path]:
        return [self.out / "ids" / name, self.out / "ids" / f"{name}.aux.xml"]

    def write(self, path: Path, name: Path, image: Photo | Raster, parts: Iterable[Part]) -> None:
        file = self.paths(name)[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_raster(file, image.size, self.classes, image if isinstance(image, Raster) else None) as write:
            for (rows, columns), ids in parts:
                write(rows, columns, ids)


FORMATS: dict[str, type[Format]] = {"png": PNG, "geotiff": GeoTIFF}


def require_8_bits(classes: ClassTable, what: str) -> None:
    """Raise ContsegError if an id exceeds 255."""
    if max(classes.ids) > 255:
        raise ContsegError(f"--format {what}: class id {max(classes.ids)} does not fit an 8-bit PNG; use --format geotiff")


def palette_of(classes: ClassTable) -> list[Colour]:
    """256 colours: those of the classes at their ids, and black."""
    palette: list[Colour] = [(0, 0, 0)] * 256
    for number, colour in zip(classes.ids, classes.colours, strict=True):
        palette[number] = colour
    return palette


def assembled(image: Photo | Raster, parts: Iterable[Part]) -> np.ndarray:
    """The parts in one array, (H, W) uint8 or uint16."""
    whole: np.ndarray | None = None
    for (rows, columns), ids in parts:
        whole = np.empty(image.size, ids.dtype) if whole is None else whole
        whole[rows, columns] = ids
    assert whole is not None
    return whole


def overlay(image: np.ndarray, colours: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The image blended with the colours, half each, where `shown`: (H, W, 3) uint8."""
    mixed = (image >> 1) + (colours >> 1) + (image & colours & 1)  # half of the sum, in 8 bits
    return np.where(shown[..., None], mixed, image)

"""The files that `contseg predict` writes, by format."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.atomic import atomic_file, write_text
from contseg.cli.predict_record import KINDS
from contseg.data.annotations import coco_content, cvat_labelmap, cvat_mask, labelme_content
from contseg.data.classes import IGNORE, ClassTable, Colour
from contseg.data.files import write_palette_png
from contseg.data.rasters import Raster, write_raster
from contseg.errors import ContsegError
from contseg.evaluation.tiles import Part, Photo


class Format(ABC):
    """How predictions are written.

    Args:
        out: the output folder.
        root: the image, or the folder of the images.
        classes: the classes of the segmenter.

    Attributes:
        suffix: of the name of a result.

    Raises:
        ContsegError: the ids of the classes do not fit this format.
    """

    suffix = ".png"

    def __init__(self, out: Path, root: Path, classes: ClassTable):
        self.out, self.root, self.classes = out, root, classes

    @abstractmethod
    def paths(self, name: Path) -> list[Path]:
        """The files of a result, those of all results included."""

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

    def __init__(self, out: Path, root: Path, classes: ClassTable):
        super().__init__(out, root, classes)
        require_8_bits(classes)
        self.palette = palette_of(classes)

    def paths(self, name: Path) -> list[Path]:
        return [self.out / kind / name for kind in KINDS]

    def write(self, path: Path, name: Path, image: Photo | Raster, parts: Iterable[Part]) -> None:
        ids, files = assembled(image, parts), self.paths(name)
        colours = np.array(self.palette, dtype=np.uint8)[ids]
        pixels = image.read(slice(0, ids.shape[0]), slice(0, ids.shape[1]))
        with _whole(files[0]) as partial:
            write_palette_png(partial, ids, self.palette)
        write_png(files[1], colours)
        write_png(files[2], overlay(pixels, colours, (ids > 0) & (ids != IGNORE)))


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


class COCO(Format):
    """`annotations.json` with all images, in COCO's instances format; file names are relative to the input folder."""

    suffix = ".json"

    def __init__(self, out: Path, root: Path, classes: ClassTable):
        super().__init__(out, root, classes)
        self._content = coco_content([], classes)

    def paths(self, name: Path) -> list[Path]:
        return [self.out / "annotations.json"]

    def write(self, path: Path, name: Path, image: Photo | Raster, parts: Iterable[Part]) -> None:
        content = coco_content([(_relative(path, self.root).as_posix(), assembled(image, parts))], self.classes)
        images, annotations = self._content["images"], self._content["annotations"]
        images += [row | {"id": len(images) + 1} for row in content["images"]]
        first = len(annotations)
        annotations += [row | {"id": first + row["id"], "image_id": len(images)} for row in content["annotations"]]

    def finish(self) -> None:
        write_text(self.out / "annotations.json", json.dumps(self._content, ensure_ascii=False))


class Labelme(Format):
    """`NAME.json` in labelme's format, with the path from there to the image."""

    suffix = ".json"

    def paths(self, name: Path) -> list[Path]:
        return [self.out / name]

    def write(self, path: Path, name: Path, image: Photo | Raster, parts: Iterable[Part]) -> None:
        file = self.out / name
        file.parent.mkdir(parents=True, exist_ok=True)
        place = Path(os.path.relpath(path.resolve(), file.parent.resolve())).as_posix()
        content = labelme_content(place, assembled(image, parts), self.classes)
        write_text(file, json.dumps(content, ensure_ascii=False))


class CVAT(Format):
    """CVAT's "Segmentation mask 1.1": `SegmentationClass/NAME.png` in colours, `labelmap.txt`, and a list of the names."""

    def __init__(self, out: Path, root: Path, classes: ClassTable):
        super().__init__(out, root, classes)
        self._names: list[str] = []
        self._labelmap, self._list = out / "labelmap.txt", out / "ImageSets" / "Segmentation" / "default.txt"

    def paths(self, name: Path) -> list[Path]:
        return [self.out / "SegmentationClass" / name, self._labelmap, self._list]

    def write(self, path: Path, name: Path, image: Photo | Raster, parts: Iterable[Part]) -> None:
        write_png(self.paths(name)[0], cvat_mask(assembled(image, parts), self.classes))
        self._names.append(name.with_suffix("").as_posix())

    def finish(self) -> None:
        self._list.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._list, "".join(f"{name}\n" for name in self._names))
        write_text(self._labelmap, cvat_labelmap(self.classes))


FORMATS: dict[str, type[Format]] = {"png": PNG, "geotiff": GeoTIFF, "coco": COCO, "labelme": Labelme, "cvat": CVAT}


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write RGB pixels (H, W, 3) as a PNG, atomically."""
    with _whole(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        yield partial


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path != root else Path(path.name)


def require_8_bits(classes: ClassTable) -> None:
    """Raise ContsegError if an id exceeds 255."""
    if max(classes.ids) > 255:
        raise ContsegError(f"--format png: class id {max(classes.ids)} does not fit an 8-bit PNG; use --format geotiff")


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

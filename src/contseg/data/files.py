"""Read and write image and mask files, with errors that name the file."""

import logging
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL import WebPImagePlugin as _  # noqa: F401  (registers the format)
from PIL.TiffImagePlugin import TiffImageFile

from contseg.data.classes import Colour
from contseg.data.headers import size_in
from contseg.data.limits import require_size
from contseg.data.pixels import AS_STORED, CHOOSE_BANDS, Reading, choose_bands, full_range, rescale
from contseg.data.tiff import SIGNATURES, TiffLayout, is_transparency, read_raster, tiff_layout, turned
from contseg.errors import ContsegError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # a damaged file is one line, without those of Pillow
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM")
_COLOUR_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")


def read_image(path: Path, reading: Reading = AS_STORED) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB, read-only, with its EXIF orientation applied.

    Transparency is dropped. `reading` rescales values of more than 8 bits and chooses bands. Files that remain ambiguous
    (a fourth band that is not transparency, signed values) are refused, as are animations.

    Raises:
        ContsegError: the file is missing, truncated, not an image, of an unsupported format, larger than `max_pixels`, or
            ambiguous with this `reading`.
    """
    with _opened(path, "image") as picture:
        layout = picture.layout
        if layout is not None and (picture.opened is None or not layout.plain or reading != AS_STORED):
            return _read_raw(path, picture, layout, reading)
        image = _loaded(path, picture)
        if image.mode not in _COLOUR_MODES and not image.mode.startswith("I"):
            raise ContsegError(f"{path}: has mode {image.mode}, which cannot be read; convert it to RGB")
        deep = image.mode.startswith("I")  # 16 bits: of PNG and PPM
        if deep or reading != AS_STORED:
            if picture.deep_colour:
                raise ContsegError(f"{path}: bands and range need the 16 bits of a colour PNG, which are not read; use TIFF")
            values = np.asarray(image if deep else image.convert("RGB"))
            return _rgb(path, values.astype(np.uint16) if deep else values, reading, full_range("u", 16 if deep else 8))
        return _array(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """Read a mask file as (H, W) uint8 or uint16 ids, upright. Palette PNGs give their indices, never their colours.

    Raises:
        ContsegError: the file is missing, truncated, larger than `max_pixels`, or has several channels (RGB).
    """
    with _opened(path, "mask") as picture:
        image = None if picture.opened is None else _loaded(path, picture)
        if image is None or image.mode not in ("L", "P", "I", "I;16", "I;16B", "1"):
            mode = image.mode if image is not None else picture.layout and f"{picture.layout.bands} x {picture.layout.type}"
            raise ContsegError(f"{path}: mask has mode {mode}; masks must be single-channel ids (grey or palette PNG)")
        mask = _array(image)
    if mask.dtype == np.uint8:
        return mask
    if mask.size and not 0 <= mask.min() <= mask.max() < 65536:
        raise ContsegError(f"{path}: mask has values {mask.min()} to {mask.max()}; ids must be 0 to 65535")
    return mask.astype(np.uint8 if mask.dtype == bool else np.uint16)


def read_segment_ids(path: Path) -> np.ndarray:
    """Read a panoptic PNG as (H, W) uint32 ids of segments, R + 256 G + 65536 B, upright.

    Raises:
        ContsegError: the file is missing, truncated, larger than `max_pixels`, or not RGB.
    """
    with _opened(path, "mask") as picture:
        image = None if picture.opened is None else _loaded(path, picture)
        if image is None or image.mode != "RGB":
            mode = image.mode if image is not None else "of a TIFF"
            raise ContsegError(f"{path}: has mode {mode}; a panoptic mask is RGB, with ids R + 256 G + 65536 B")
        red, green, blue = np.moveaxis(_array(image), 2, 0).astype(np.uint32)
    return red + (green << 8) + (blue << 16)


def write_segment_ids(path: Path, ids: np.ndarray) -> None:
    """Write ids (H, W) below 2^24 as a panoptic PNG, which `read_segment_ids` reads."""
    pixels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


def stored_mode(path: Path) -> tuple[str, str]:
    """The mode of a mask file in Pillow's terms (`P`, `RGB`; "" if Pillow has none), and its format (`PNG`).

    Raises:
        ContsegError: the file is missing, not an image, of an unsupported format, or larger than `max_pixels`.
    """
    with _opened(path, "mask") as picture:
        return (picture.image.mode, picture.image.format or "") if picture.image is not None else ("", "TIFF")


def has_even_transparency(path: Path) -> bool:
    """Whether all pixels of an RGBA or LA file are equally transparent.

    Raises:
        ContsegError: as `read_mask`.
    """
    with _opened(path, "mask") as picture:
        low, high = _loaded(path, picture).getchannel("A").getextrema()
        return low == high


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image, from the file's header, without decoding it.

    Raises:
        ContsegError: the file is missing, not an image, or larger than `max_pixels`.
    """
    try:
        handle = _descriptor(path, os.O_RDONLY)  # half the time of a file object
        try:
            found = size_in(os.read(handle, 4096), handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise _problem(path, "image", error) from None
    if found:
        require_size(path, *found)
        return found
    with _opened(path, "image") as picture:
        height, width = picture.size
        return (width, height) if _orientation(picture) >= 5 else (height, width)


def orientation(path: Path) -> int:
    """The EXIF orientation of an image file, from its header: 1 upright, 2 to 8 rotated or mirrored.

    Raises:
        ContsegError: as `image_size`.
    """
    with _opened(path, "image") as picture:
        return _orientation(picture)


def notes(path: Path, reading: Reading = AS_STORED) -> list[str]:
    """What reading changes in an image, from its header: rotation by EXIF, rescaling to 8 bits.

    Raises:
        ContsegError: as `image_size`.
    """
    with _opened(path, "image") as picture:
        turned = [] if _orientation(picture) == 1 else ["turned upright by their EXIF orientation"]
        return turned + _rescaling(picture, reading)


def rescaling(path: Path, reading: Reading = AS_STORED) -> list[str]:
    """How values become 8 bits, from the header of an image; [] if they have 8 bits.

    Raises:
        ContsegError: as `image_size`.
    """
    with _opened(path, "image") as picture:
        return _rescaling(picture, reading)


def _rescaling(picture: "_Picture", reading: Reading) -> list[str]:
    if picture.layout is not None:
        kind, bits = picture.layout.kind, picture.layout.bits
    else:
        kind, bits = "u", 16 if picture.deep_colour or picture.image.mode.startswith("I") else 8
    bounds = reading.range or full_range(kind, bits)
    if bounds is not None and (kind != "u" or bits > 8 or reading.range is not None):
        depth = "floats" if kind == "f" else f"{bits} bits"
        others = "data.options.range, or predict --range, sets others"
        return [f"{depth}, of which {bounds[0]:g} to {bounds[1]:g} become 0 to 255 ({others})"]
    return []


@dataclass(frozen=True)
class _Picture:
    """An open file: Pillow's image (None for layouts that Pillow lacks), and the layout of a TIFF."""

    opened: ImageFile.ImageFile | None
    layout: TiffLayout | None

    @property
    def image(self) -> ImageFile.ImageFile:
        """Pillow's image."""
        if self.opened is None:
            raise SyntaxError("a TIFF of unknown layout")
        return self.opened

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""
        if self.layout is not None:
            return self.layout.height, self.layout.width
        return self.image.height, self.image.width

    @property
    def deep_colour(self) -> bool:
        """Colours of 16 bits, of which Pillow reads the upper half."""
        return self.layout is None and any(
            ";16" in str(tile[3]) and self.image.mode in _COLOUR_MODES for tile in self.image.tile
        )


@contextmanager
def _opened(path: Path, what: str) -> Iterator[_Picture]:
    """Open a file of a supported format and size; every error becomes one line."""
    try:
        with open(path, "rb", opener=_descriptor) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ContsegError(f"{path}: cannot be read as {_a(what)} (a pipe or a device); replace it with a file")
            picture = _identify(path, what, file)
            require_size(path, *picture.size)
            yield picture
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        MemoryError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise _problem(path, what, error) from None


def _descriptor(path: Path | str, flags: int) -> int:
    """Open a file without waiting, which a pipe would until something writes to it."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))


def _problem(path: Path, what: str, error: Exception) -> ContsegError:
    if isinstance(error, FileNotFoundError):
        hint = "check the list that names it" if what == "image" else "every image needs one of the same name"
        return ContsegError(f"{path}: {what} not found; {hint}")
    if isinstance(error, PermissionError | IsADirectoryError):
        return ContsegError(f"{path}: cannot be opened ({error.strerror})")
    reason = " ".join(str(error).split()) or type(error).__name__
    return ContsegError(f"{path}: cannot be read as {_a(what)} ({reason}); replace the file")


def _a(what: str) -> str:
    return "an image" if what == "image" else f"a {what}"


def _identify(path: Path, what: str, file: IO[bytes]) -> _Picture:
    """Open a file in one of the supported formats; other formats of Pillow start programs (EPS) or are no image formats."""
    Image.preinit()
    start = file.read(16)
    if start.startswith(SIGNATURES):
        layout = tiff_layout(file)
        file.seek(0)
        try:
            # without its path, so that Pillow does not memory-map the file: a rotated TIFF that is mapped comes out wrong
            return _Picture(TiffImageFile(file), layout)
        except SyntaxError:
            return _Picture(None, layout)
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        found = accepts is not None and accepts(start)
        if found and not isinstance(found, str):  # a string: Pillow was built without this format
            file.seek(0)
            return _Picture(factory(file, ""), None)
    if not start:
        raise SyntaxError("the file is empty")
    formats = ", ".join((*_FORMATS, "TIFF"))
    raise ContsegError(f"{path}: cannot be read as {_a(what)} (none of {formats}); convert it to PNG, or replace the file")


def _loaded(path: Path, picture: _Picture) -> Image.Image:
    """The decoded image, upright.

    Raises:
        ContsegError: the file has several frames.
    """
    image = picture.image
    if picture.layout is not None:
        count = picture.layout.pages
    else:  # a phone's JPEG may contain a second image (MPO), which no viewer shows
        count = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    if count > 1:
        raise ContsegError(f"{path}: has {count} frames; save each as a file of its own")
    image.load()
    with suppress(Exception):  # the image is still good if its EXIF block is broken
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _array(image: Image.Image) -> np.ndarray:
    """`np.asarray(image)`, read-only. Pixels of bytes are taken in one piece: NumPy receives and joins pieces of 64 KiB."""
    bands = {"RGB": 3, "L": 1, "P": 1}.get(image.mode, 0)
    count = image.width * image.height * bands
    if not count:
        return np.asarray(image)
    encoder = Image._getencoder(image.mode, "raw", image.mode)
    encoder.setimage(image.im, (0, 0, *image.size))
    written, done, pixels = encoder.encode(count)
    if (written, done) != (count, 1):
        return np.asarray(image)
    return np.frombuffer(pixels, dtype=np.uint8).reshape(image.height, image.width, *[bands] * (bands > 1))


def _orientation(picture: _Picture) -> int:
    if picture.layout is not None:
        return picture.layout.orientation
    try:
        return int(picture.image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises many kinds for a broken EXIF block; the image is still good
        return 1


def _read_raw(path: Path, picture: _Picture, layout: TiffLayout, reading: Reading) -> np.ndarray:
    """Read a TIFF that Pillow lacks, that has more than 8 bits, or whose bands or range are chosen."""
    image = picture.opened
    bounds = full_range(layout.kind, layout.bits)
    if not layout.kind:
        raise ContsegError(f"{path}: has values of type {layout.type}, which no image has")
    if layout.bands > layout.colours and not reading.bands:
        if not (layout.alpha and image is not None and image.mode in ("RGBA", "LA", "La")):
            raise ContsegError(f"{path}: has {layout.bands} bands of {layout.type}; {CHOOSE_BANDS}")
        shown = _loaded(path, picture)
        if not is_transparency(np.asarray(shown.getchannel(shown.getbands()[-1]))):
            raise ContsegError(
                f"{path}: has {layout.bands} bands of {layout.type}, the last of them not a mask; {CHOOSE_BANDS}"
            )
        if reading == AS_STORED:
            return np.asarray(shown.convert("RGB"))
        reading = replace(reading, bands=tuple(range(1, layout.bands)))
    if image is not None and layout.plain:
        return _rgb(path, np.asarray(_loaded(path, picture).convert("RGB")), reading, full_range("u", 8))
    if image is not None and reading == AS_STORED and image.mode in ("RGB", "CMYK"):
        return np.asarray(_loaded(path, picture).convert("RGB"))
    if image is not None and layout.bands == 1 and image.mode != "P":
        values = np.asarray(_loaded(path, picture))
        if layout.kind != "f":
            values = values.astype("u2" if layout.bits == 12 else f"{layout.kind}{layout.bits // 8}")
        if layout.inverted and layout.kind == "u":
            values = (2**layout.bits - 1 - values.astype(np.int64)).astype(values.dtype)
        return _rgb(path, values, reading, bounds)
    if layout.pages > 1:
        raise ContsegError(f"{path}: has {layout.pages} frames; save each as a file of its own")
    values = turned(read_raster(path, reading.bands), layout.orientation)
    return _rgb(path, values, replace(reading, bands=()), bounds)


def _rgb(path: Path, values: np.ndarray, reading: Reading, default: tuple[float, float] | None) -> np.ndarray:
    """Values (H, W) or (H, W, C) as RGB, with the bands and range of `reading`."""
    try:
        return rescale(
            choose_bands(values if values.ndim == 3 else values[..., None], reading.bands), reading.range, default
        )
    except ContsegError as error:
        raise ContsegError(f"{path}: {error}") from None


def write_palette_png(path: Path, ids: np.ndarray, colours: list[Colour]) -> None:
    """Write ids (H, W) uint8 as a palette PNG: viewers show `colours`, `read_mask` returns the ids."""
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    # Pillow cuts ids to the bits of the palette's length, so that ids without a colour need one
    colours = colours + [(0, 0, 0)] * (int(ids.max(initial=0)) + 1 - len(colours))
    image.putpalette([channel for colour in colours for channel in colour])
    image.save(path, format="PNG")

"""Pictures from anywhere: read, or refused in one line, before memory is allocated; no program is started."""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.data.files import has_even_transparency, image_size, notes, orientation, read_image, read_mask, stored_mode
from contseg.data.pipelines.augment import evaluation_pipeline
from contseg.data.pixels import Reading
from contseg.data.rasters import is_raster
from contseg.evaluation.inference import infer
from contseg.evaluation.options import InferenceOptions
from tests.security.refusal import refusal

READERS = (image_size, stored_mode, orientation, notes, has_even_transparency, read_mask, read_image)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
MOST = 2**31 - 1


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int = 4, height: int = 4, bits: int = 8, colour: int = 2, pixels: bytes = b"\0" * 100, extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(**tags: tuple[int, int]) -> bytes:
    """A little TIFF whose tags claim anything: name=(number, value)."""
    rows = sorted(tags.values())
    entries = b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in rows)
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + entries + struct.pack("<I", 0) + b"\0" * 64


def sound(form: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(data, form)
    return data.getvalue()


def flipped(data: bytes, seed: int) -> bytes:
    """Up to five bytes of the beginning replaced."""
    rng, changed = np.random.default_rng(seed), bytearray(data)
    for _ in range(rng.integers(1, 6)):
        changed[rng.integers(0, min(len(changed), 300))] = rng.integers(0, 256)
    return bytes(changed)


def patched(form: str, at: int, kind: str, *values: int) -> bytes:
    data = bytearray(sound(form))
    struct.pack_into(kind, data, at, *values)
    return bytes(data)


CLAIMS = {
    **{f"png {w}x{h}": png(w, h) for w, h in ((100_000, 100_000), (MOST, MOST), (2**32 - 1, 1), (1, 178_956_971))},
    **{f"bmp {w}x{h}": patched("BMP", 18, "<ii", w, h) for w, h in ((100_000, 100_000), (MOST, 1), (MOST, -MOST))},
    **{f"gif {w}x{h}": patched("GIF", 6, "<HH", w, h) for w, h in ((65535, 65535),)},
    **{f"ppm {size.decode()}": b"P6 " + size + b" 255\n" for size in (b"100000 100000", b"1000000000 1", b"9999999999 4")},
    **{
        f"tiff {w}x{h}": tiff(width=(256, w), height=(257, h), bits=(258, 8), kind=(262, 1), at=(273, 8), size=(279, 9))
        for w, h in ((100_000, 100_000), (MOST, MOST), (4_000_000_000, 4_000_000_000))
    },
}
BOMBS = {
    "pixels": png(pixels=b"\0" * 50_000_000),
    "text": png(extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 50_000_000, 1))),
    "international text": png(extra=chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"\0" * 50_000_000, 1))),
    "profile": png(extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 50_000_000, 1))),
    "XMP": png(extra=chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<a>" * 10_000_000, 1))),
    "length of a chunk": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", MOST) + b"IHDR",
    "bands": tiff(w=(256, 9000), h=(257, 9000), bits=(258, 64), kind=(262, 1), at=(273, 8), n=(277, 65535), size=(279, 9)),
    "circular pages": b"II*\0" + struct.pack("<IHHHIII", 8, 1, 256, 4, 1, 4, 8),
}
OTHERS = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\nshowpage\n%%EOF\n",
    "PDF": b"%PDF-1.4",
    "WMF": b"\xd7\xcd\xc6\x9a\0",
    "FITS": b"SIMPLE  =",
    "PSD": b"8BPS\0\1",
    "ICO": b"\0\0\1\0\1\0",
    "ICNS": b"icns\0\0\0\x08",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "GRIB": b"GRIB\0\0\0\1",
    "BUFR": b"BUFR",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "XML with an entity": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    "VRT": b"<VRTDataset rasterXSize='4' rasterYSize='4'></VRTDataset>",
    "zip": b"PK\3\4",
    "ELF": b"\x7fELF",
    "script": b"#!/bin/sh\ntouch started\n",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "DDS": b"DDS |\0\0\0",
    "XPM": b"/* XPM */",
    "AVIF": b"\0\0\0 ftypavif",
    "PCX": b"\x0a\5\1\1",
    "BLP": b"BLP2",
    "MSP": b"LinS",
    "IM": b"Image type: 0 1\r\n",
    "SGI": b"\x01\xda\1\1",
    "Sun": b"\x59\xa6\x6a\x95",
    "pickle": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "nothing": b"",
    "zeros": b"\0" * 500,
}
DAMAGED = {f"{form} flip {seed}": flipped(sound(form), seed) for form in FORMATS for seed in range(20)}
DAMAGED |= {
    f"{form} cut {count}": sound(form)[:count] for form in FORMATS for count in (1, 4, 10, 20, 50, len(sound(form)) // 2)
}
DAMAGED |= {
    f"png {bits} bits colour {colour}": png(bits=bits, colour=colour)
    for bits in (0, 1, 3, 16, 255)
    for colour in (0, 2, 3, 5, 6)
}
DAMAGED |= {
    f"ppm {header[:12]!r}": header
    for header in (
        b"P6 4 4 0\n",
        b"P6 4 4 99999\n",
        b"P6 -1 4 255\n",
        b"P1 4 4\n",
        b"P2 4 4 255\n" + b"9" * 9999,
        b"P7\nWIDTH 4\n",
    )
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_size_that_is_only_claimed_is_refused_before_memory_is_allocated(tmp_path, name):
    path = tmp_path / "a.png"
    path.write_bytes(CLAIMS[name])
    for read in (read_image, read_mask, image_size):
        assert "pixels; cut it" in refusal(read, path) or "cannot be read" in refusal(read, path)


@pytest.mark.parametrize("name", BOMBS)
def test_what_inflates_is_refused_or_costs_no_memory(tmp_path, name):
    path = tmp_path / "a.png"
    path.write_bytes(BOMBS[name])
    for read in READERS:
        refusal(read, path)
    refusal(read_image, path, Reading(bands=(1, 2, 3)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_kind_is_refused_whatever_its_name(tmp_path, monkeypatch, name, suffix):
    started = tmp_path / "started"
    for program in ("gs", "convert", "sh"):
        (tmp_path / program).write_text(f"#!/bin/sh\n: > {started}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(OTHERS[name] + (b"\0" * 200 if OTHERS[name] else b""))
    assert all("cannot be read as" in refusal(read, path) for read in (read_image, read_mask, image_size, notes))
    assert not started.exists()


def pipe(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, listening, device])
def test_what_is_no_file_is_refused_and_nothing_waits_for_it(tmp_path_factory, make):
    path = tmp_path_factory.mktemp("a") / "a.tif"  # a short path, as sockets need
    make(path)
    assert all(f"{path}: cannot be read as" in refusal(read, path) for read in READERS)
    assert not is_raster(path)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, capfd, name):
    path = tmp_path / "a.png"
    path.write_bytes(DAMAGED[name])
    for read in READERS:
        refusal(read, path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (2, 178_000_000)], ids=str)
def test_an_absurd_aspect_asks_for_no_memory_when_it_is_resized(shape):
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (*shape, 3))
    mask = np.broadcast_to(np.zeros((1, 1), np.uint8), shape)
    crop = evaluation_pipeline(512)
    assert "data.test_crop=512" in refusal(crop, image, {"mask": mask}, np.random.default_rng(0))
    planes, options = torch.zeros(1, 1, 1, 1).expand(1, 3, *shape), InferenceOptions(fit=[10**9, 512])
    assert "evaluation.fit" in refusal(infer, lambda images: images, planes, options)

"""Pictures are read upright, at their true depth and bands, or refused in one line that calls no sound file broken."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from contseg.data.check import check_dataset
from contseg.data.datasets.coco_json import CocoJSON
from contseg.data.datasets.folder import Folder
from contseg.data.files import image_size, notes, orientation, read_image, read_mask
from contseg.data.open import open_dataset
from contseg.data.pixels import Reading
from contseg.data.presence import build_presence
from contseg.errors import ContsegError
from contseg.scenarios.batch import Samples
from tests.trees.coco_json import coco_json

STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera stores a picture that a viewer shows upright, by the orientation that it writes."""
UPRIGHT = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
RAMP = np.tile(np.linspace(0, 65535, 40).astype(np.uint16), (5, 1))


def save_turned(upright: np.ndarray, path: Path, tag: int, **options) -> Path:
    """The file of a camera that was held another way."""
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(upright).transpose(STORED[tag]).save(path, exif=exif, **options)
    return path


def save_raster(path: Path, values: np.ndarray, **options) -> Path:
    """A GeoTIFF of (C, H, W)."""
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **options
    ) as raster:
        raster.write(values)
    return path


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
class TestOrientation:
    @pytest.mark.parametrize("tag", STORED)
    @pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
    def test_pixels_and_header_sizes_are_those_that_a_viewer_shows(self, tmp_path, tag, suffix):
        upright = np.kron(UPRIGHT, np.ones((16, 16, 1), np.uint8))
        options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
        path = save_turned(upright, tmp_path / f"a.{suffix}", tag, **options)
        assert image_size(path) == (64, 96)
        assert orientation(path) == tag
        assert np.abs(read_image(path).astype(int) - upright).max() <= (3 if suffix == "jpg" else 0)

    @pytest.mark.parametrize("tag", STORED)
    def test_a_deep_or_many_banded_tiff_is_turned_likewise(self, tmp_path, tag):
        path = save_turned(RAMP, tmp_path / "grey.tif", tag)
        assert np.array_equal(read_image(path)[..., 0], np.rint(RAMP / 257))
        stored = np.asarray(Image.fromarray(RAMP).transpose(STORED[tag]))
        bands = save_raster(tmp_path / "bands.tif", np.stack([stored] * 5))
        raw = bytearray(bands.read_bytes())
        at = raw.index(struct.pack("<HHI", 0x0102, 3, 5))  # the tag of bits gives its place to the orientation
        entries = int.from_bytes(raw[8:10], "little")
        photometric = next(10 + 12 * n for n in range(entries) if raw[10 + 12 * n : 12 + 12 * n] == b"\x1c\x01")
        assert at
        raw[photometric : photometric + 12] = struct.pack(
            "<HHIHH", 0x0112, 3, 1, tag, 0
        )  # planar configuration: the default
        bands.write_bytes(raw)
        found = read_image(bands, Reading((1,)))
        assert np.array_equal(found[..., 0], np.rint(RAMP / 257))
        assert image_size(bands) == RAMP.shape

    def test_an_orientation_in_a_chunk_after_the_pixels_counts_too(self, tmp_path):
        path = save_turned(UPRIGHT, tmp_path / "a.png", 6)
        raw = path.read_bytes()
        at = raw.index(b"eXIf") - 4
        end = at + 12 + int.from_bytes(raw[at : at + 4], "big")
        path.write_bytes(raw[:at] + raw[end:-12] + raw[at:end] + raw[-12:])
        assert image_size(path) == UPRIGHT.shape[:2]
        assert np.array_equal(read_image(path), UPRIGHT)

    def test_a_broken_exif_block_does_not_make_a_picture_broken(self, tmp_path):
        Image.fromarray(UPRIGHT).save(tmp_path / "a.png", exif=b"Exif\0\0rubbish")
        assert image_size(tmp_path / "a.png") == UPRIGHT.shape[:2]
        assert np.array_equal(read_image(tmp_path / "a.png"), UPRIGHT)

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_masks_are_upright_too(self, tmp_path, suffix):
        ids = np.arange(24, dtype=np.uint8).reshape(4, 6)
        path = save_turned(ids, tmp_path / f"a.{suffix}", 6)
        assert np.array_equal(read_mask(path), ids)

    @pytest.mark.parametrize("tags", [(6, 8, 3, 5), (2, 4, 7, 6)], ids=str)
    def test_photos_lie_on_the_masks_that_were_drawn_on_them(self, folder, tmp_path, tags):
        """In reading, in the presence table, in the check and beside saliency maps."""
        rng = np.random.default_rng(0)
        for name, tag in zip(("000", "001", "002", "003"), tags, strict=True):
            image = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            save_turned(image, folder / "images" / f"{name}.png", tag)
            mask = (image[..., 0] > 100).astype(np.uint8)
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
            (tmp_path / "salient").mkdir(exist_ok=True)
            Image.fromarray(mask * 255).save(tmp_path / "salient" / f"{name}.png")
        dataset = Folder(folder)
        problems, (train, _) = check_dataset(dataset)
        assert problems == []
        assert train.notes == {"turned upright by their EXIF orientation": 4}
        assert build_presence(dataset, "train", cached=False).pixels.sum() > 0
        samples = Samples(
            dataset, ("000", "001", "002", "003"), np.zeros(65536, np.uint8), np.array([True]), tmp_path / "salient"
        )
        for index in range(4):
            image, layers = samples.read(index)
            assert np.array_equal(image[..., 0] > 100, layers["mask"] == 1)
            assert np.array_equal(image[..., 0] > 100, layers["saliency"] > 0)

    def test_a_mask_drawn_on_the_stored_picture_is_told_with_the_reason(self, folder):
        save_turned(np.zeros((32, 48, 3), np.uint8), folder / "images" / "000.png", 6)
        Image.fromarray(np.zeros((48, 32), np.uint8)).save(folder / "masks" / "000.png")
        told = r"masks/000\.png: mask is 32x48 but its image is 48x32 as its EXIF orientation \(6\) shows it"
        with pytest.raises(ContsegError, match=told):
            Folder(folder).read("000")
        with pytest.raises(ContsegError, match=told):
            build_presence(Folder(folder), "train", cached=False)
        assert "EXIF" in check_dataset(Folder(folder))[0][0].text

    def test_sizes_of_coco_json_are_those_of_the_upright_image(self, tmp_path):
        dataset = coco_json(tmp_path / "data")
        name = dataset.names("train")[0]
        path = dataset.image_path(name)
        upright = read_image(path)
        save_turned(upright, path, 6)
        assert CocoJSON(tmp_path / "data").read_mask(name).shape == upright.shape[:2]
        save_turned(np.rot90(upright).copy(), path, 6)
        with pytest.raises(ContsegError, match="as its EXIF orientation shows it"):
            CocoJSON(tmp_path / "data").read_mask(name)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
class TestDepth:
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_16_bits_are_divided_by_257(self, tmp_path, suffix):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(RAMP).save(path)
        assert np.array_equal(read_image(path), np.rint(RAMP / 257)[..., None].repeat(3, axis=2))
        assert notes(path) == [
            "16 bits, of which 0 to 65535 become 0 to 255 (data.options.range, or predict --range, sets others)"
        ]

    def test_floats_go_from_0_to_1(self, tmp_path):
        Image.fromarray((RAMP / 65535).astype(np.float32)).save(tmp_path / "a.tif")
        assert np.array_equal(read_image(tmp_path / "a.tif")[..., 2], np.rint((RAMP / 65535).astype(np.float32) * 255.0))

    def test_three_bands_of_16_bits_are_colours(self, tmp_path):
        values = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2])
        path = save_raster(tmp_path / "a.tif", values)
        assert np.array_equal(read_image(path), np.rint(values.transpose(1, 2, 0) / 257))

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ((RAMP // 2).astype(np.int16), r"has int16 values from 0 to 32767; set the values .* data.options.range"),
            (RAMP.astype(np.int32), r"has int32 values from 0 to 65535; set the values"),
            (RAMP.astype(np.float32), r"has float32 values from 0 to 65535; set the values"),
            (np.where(RAMP < 9, np.nan, 2.0).astype(np.float32), r"has float32 values from 2 to 2; set"),
        ],
        ids=["int16", "int32", "float", "NaN"],
    )
    def test_values_of_no_known_range_are_refused_until_it_is_told(self, tmp_path, values, told):
        path = save_raster(tmp_path / "a.tif", values[None])
        with pytest.raises(ContsegError, match=told) as error:
            read_image(path)
        assert "replace" not in str(error.value)
        found = read_image(path, Reading(range=(0, 20000)))[..., 0]
        assert np.array_equal(found, np.rint(np.clip(np.nan_to_num(values.astype(float)), 0, 20000) / 20000 * 255))

    def test_a_range_is_taken_of_any_depth_and_what_is_outside_is_clipped(self, tmp_path):
        Image.fromarray(RAMP).save(tmp_path / "a.png")
        found = read_image(tmp_path / "a.png", Reading(range=(1000, 4095)))[..., 0]
        assert np.array_equal(found, np.rint(np.clip((RAMP.astype(float) - 1000) / 3095, 0, 1) * 255))
        Image.fromarray(UPRIGHT).save(tmp_path / "b.png")
        assert np.array_equal(read_image(tmp_path / "b.png", Reading(range=(0, 510))), np.rint(UPRIGHT / 2))

    def test_the_check_says_how_deep_images_are_read(self, folder):
        image = read_image(folder / "images" / "000.png")[..., 0].astype(np.uint16)
        Image.fromarray(image * 257).save(folder / "images" / "000.png")
        problems, (train, test) = check_dataset(Folder(folder))
        assert problems == []
        assert list(train.notes.values()) == [1]
        assert "of which 0 to 65535 become 0 to 255" in next(iter(train.notes))
        assert test.notes == {}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
class TestBands:
    BANDS = np.stack([np.full((5, 7), 10 * band + 5, np.uint8) for band in range(1, 6)])

    @pytest.mark.parametrize(
        ("count", "photometric"), [(2, "MINISBLACK"), (4, "MINISBLACK"), (5, "MINISBLACK"), (4, "RGB"), (5, "RGB")]
    )
    def test_more_bands_than_colours_are_refused_until_they_are_chosen(self, tmp_path, count, photometric):
        path = save_raster(tmp_path / "a.tif", self.BANDS[:count], photometric=photometric)
        with pytest.raises(
            ContsegError, match=rf"has {count} bands of uint8.*; choose three .*data.options.bands=\[1, 2, 3\]"
        ):
            read_image(path)
        chosen = (count, 1, 2)
        assert read_image(path, Reading(chosen))[0, 0].tolist() == [10 * band + 5 for band in chosen]
        assert read_image(path, Reading((count,)))[0, 0].tolist() == [10 * count + 5] * 3
        with pytest.raises(ContsegError, match=rf"has {count} bands, no band 9"):
            read_image(path, Reading((9,)))

    @pytest.mark.parametrize("photometric", ["MINISBLACK", "RGB"])
    def test_three_bands_are_colours_whatever_the_file_calls_them(self, tmp_path, photometric):
        path = save_raster(tmp_path / "a.tif", self.BANDS[:3], photometric=photometric)
        assert read_image(path)[0, 0].tolist() == [15, 25, 35]
        assert notes(path) == []

    @pytest.mark.parametrize("alpha", [9, 0, 255])
    def test_a_band_that_is_declared_as_alpha_is_dropped_where_it_shows_or_hides_and_else_refused(self, tmp_path, alpha):
        pixels = np.dstack([UPRIGHT, np.full(UPRIGHT.shape[:2], alpha, np.uint8)])
        Image.fromarray(pixels).save(tmp_path / "a.tif")
        if alpha == 9:
            with pytest.raises(ContsegError, match="has 4 bands of uint8, the last of them not a mask"):
                read_image(tmp_path / "a.tif")
        else:
            assert np.array_equal(read_image(tmp_path / "a.tif"), UPRIGHT)
        assert np.array_equal(read_image(tmp_path / "a.tif", Reading((1, 2, 3))), UPRIGHT)
        assert read_image(tmp_path / "a.tif", Reading((4,)))[0, 0, 0] == alpha

    def test_transparency_of_png_and_webp_is_dropped(self, tmp_path):
        pixels = np.dstack([UPRIGHT, np.full(UPRIGHT.shape[:2], 200, np.uint8)])
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert np.array_equal(read_image(tmp_path / "a.png"), UPRIGHT)

    def test_a_dataset_is_opened_with_bands_and_range(self, folder):
        path = folder / "images" / "000.png"
        image = read_image(path)
        path.unlink()
        values = np.concatenate([image.transpose(2, 0, 1), image[None, ..., 0]]).astype(np.uint16) * 16
        save_raster(path.with_suffix(".tif"), values)
        dataset = open_dataset("folder", folder, bands=[3, 2, 1], range=[0, 4080])
        assert np.array_equal(dataset.read("000")[0], image[..., ::-1])
        assert build_presence(dataset, "train", cached=False).pixels.sum() > 0

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"bands": [1, 2]}, "data.options.bands: expected the numbers of three bands"),
            ({"bands": [0, 1, 2]}, "data.options.bands"),
            ({"bands": 3}, "data.options.bands"),
            ({"range": [1]}, "data.options.range: expected"),
            ({"range": [2, 1]}, "data.options.range"),
            ({"range": [0, True]}, "data.options.range"),
        ],
        ids=str,
    )
    def test_wrong_bands_and_ranges_are_told(self, folder, options, told):
        with pytest.raises(ContsegError, match=told):
            open_dataset("folder", folder, **options)


class TestFrames:
    @pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
    def test_several_frames_are_refused(self, tmp_path, suffix):
        frames = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (0, 128, 255)]
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.raises(ContsegError, match="has 3 frames; save each as a file of its own"):
            read_image(tmp_path / f"a.{suffix}")

    def test_a_smaller_copy_in_a_tiff_is_no_frame(self, tmp_path):
        image = Image.fromarray(np.kron(UPRIGHT, np.ones((16, 16, 1), np.uint8)))
        image.save(tmp_path / "a.tif")
        with rasterio.open(tmp_path / "a.tif", "r+") as raster:
            raster.build_overviews([2, 4])
        assert np.array_equal(read_image(tmp_path / "a.tif"), np.asarray(image))

    def test_a_photo_with_a_second_picture_behind_it_is_the_first(self, tmp_path):
        first, second = (Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (100, 200))
        first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
        assert read_image(tmp_path / "a.jpg").mean() == pytest.approx(100, abs=2)


class TestWhatIsOpened:
    def test_no_other_program_is_started_for_a_file_of_another_format(self, tmp_path, monkeypatch):
        started = tmp_path / "started"
        (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
        (tmp_path / "gs").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        path = tmp_path / "a.jpg"
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\nshowpage\n%%EOF\n")
        for read in (read_image, read_mask, image_size):
            with pytest.raises(ContsegError, match=r"cannot be read as .*none of JPEG, PNG.*; convert it to PNG"):
                read(path)
        assert not started.exists()

    @pytest.mark.parametrize("read", [read_image, read_mask, image_size])
    @pytest.mark.parametrize("side", [100_000, 2**31 - 1])
    def test_a_size_that_is_only_claimed_is_refused_before_memory_is_taken(self, tmp_path, read, side):
        (tmp_path / "a.png").write_bytes(png_of(side, side))
        with pytest.raises(ContsegError, match=rf"a.png: {side}x{side} is more than 178956970 pixels; .*data.max_pixels="):
            read(tmp_path / "a.png")

    def test_the_most_pixels_are_the_users_choice(self, tmp_path, monkeypatch):
        Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
        monkeypatch.setenv("CONTSEG_MAX_PIXELS", "23")
        with pytest.raises(ContsegError, match="6x4 is more than 23 pixels"):
            read_image(tmp_path / "a.png")
        monkeypatch.setenv("CONTSEG_MAX_PIXELS", "24")
        assert read_image(tmp_path / "a.png").shape == (4, 6, 3)
        monkeypatch.setenv("CONTSEG_MAX_PIXELS", "many")
        with pytest.raises(ContsegError, match="CONTSEG_MAX_PIXELS: 'many' is not a number"):
            read_image(tmp_path / "a.png")

    @pytest.mark.filterwarnings("error")
    def test_more_pixels_than_pillow_allows_are_read_where_the_user_allows_them(self, tmp_path, monkeypatch):
        Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
        assert np.array_equal(read_image(tmp_path / "a.png"), UPRIGHT)
        assert image_size(tmp_path / "a.png") == (4, 6)

    def test_an_empty_file_a_folder_and_a_broken_tiff_are_one_line(self, tmp_path):
        (tmp_path / "a.png").touch()
        (tmp_path / "b.png").mkdir()
        (tmp_path / "c.tif").write_bytes(b"II*\0rubbish")
        for name, told in {"a.png": "the file is empty", "b.png": "cannot be opened", "c.tif": "broken TIFF header"}.items():
            for read in (read_image, read_mask, image_size):
                with pytest.raises(ContsegError, match=told) as error:
                    read(tmp_path / name)
                assert "\n" not in str(error.value)

"""`contseg predict` on GeoTIFFs of any size, on frames and turned photos, and with little memory or a full disk."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from contseg.cli import predict_images
from contseg.cli.console import console
from contseg.cli.progress import progress_of
from contseg.data.classes import ClassTable
from contseg.data.rasters import is_raster
from contseg.evaluation.inference import Inference
from contseg.evaluation.options import InferenceOptions
from contseg.evaluation.predict import predict_image
from contseg.evaluation.tiles import Photo, predict_tiles
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.recipes.models import open_model
from tests.cli.test_bad_input import refused
from tests.data.test_pictures import STORED, save_raster, save_turned
from tests.engine.runs import command
from tests.trees.foreign import save_foreign

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 300_000, 0, -0.5, 5_000_000)}
NAMES = ("background", "cat", "<dog> & co")


def undecided(network: Segmenter) -> Segmenter:
    """The network with logits whose mean is 0 on `noise`, so that no class wins everywhere."""
    with torch.no_grad():
        images = torch.from_numpy(noise()[None])
        network.classifier.steps[0].bias -= network.eval()(network.normalise(images)).logits.mean(dim=(0, 2, 3))
    return network


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """The default output folder is in the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.safetensors"
    network = Segmenter(NetworkOptions(backbone="resnet18", head="fcn", width=4, head_width=8, output_stride=8), [3])
    save_segmenter(path, undecided(network), ClassTable.of(NAMES))
    return path


def noise(height: int = 100, width: int = 130, bands: int = 3) -> np.ndarray:
    """Coloured squares, (C, H, W)."""
    small = np.random.default_rng(0).integers(1, 256, (bands, height // 10 + 1, width // 10 + 1), dtype=np.uint8)
    return np.kron(small, np.ones((1, 10, 10), np.uint8))[:, :height, :width]


def predicted(segmenter: Path, image: Path, out: Path, *words) -> tuple[np.ndarray, dict, str]:
    """The ids of a GeoTIFF, its profile, and what was printed."""
    code, said, errors = command("predict", segmenter, image, "--out", out, *words)
    assert (code, errors) == (0, "")
    with rasterio.open(out / "ids" / f"{image.stem}.tif") as file:
        return file.read(1), file.profile, said


def expected(segmenter: Path, pixels: np.ndarray) -> np.ndarray:
    return predict_image(load_segmenter(segmenter)[0], pixels)


def expected_in_windows(segmenter: Path, pixels: np.ndarray, side: int) -> np.ndarray:
    inference = Inference(InferenceOptions(mode="slide", crop=side))
    ids = np.empty(pixels.shape[:2], np.uint8)
    for (rows, columns), part in predict_tiles(load_segmenter(segmenter)[0], Photo(pixels), inference):
        ids[rows, columns] = part
    return ids


class TestGeoTIFF:
    def test_the_result_has_the_place_the_colours_and_the_names(self, segmenter, tmp_path):
        save_raster(tmp_path / "a.tif", noise(), **PLACE)
        ids, profile, said = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        assert np.array_equal(ids, expected(segmenter, noise().transpose(1, 2, 0)))
        assert len(np.unique(ids)) > 1
        assert "note" not in said
        assert (profile["crs"], profile["transform"]) == (rasterio.CRS.from_epsg(32633), PLACE["transform"])
        assert (profile["dtype"], profile["nodata"], profile["compress"], profile["tiled"]) == (
            "uint8",
            255,
            "deflate",
            True,
        )
        with rasterio.open(tmp_path / "out" / "ids" / "a.tif") as file:
            assert file.colormap(1)[1] == (128, 0, 0, 255)
            assert file.tags(1) == {f"CLASS_{number}": name for number, name in enumerate(NAMES)}
        categories = (tmp_path / "out" / "ids" / "a.tif.aux.xml").read_text()
        assert "<Category>cat</Category><Category>&lt;dog&gt; &amp; co</Category>" in categories
        assert sorted(path.name for path in (tmp_path / "out" / "ids").iterdir()) == ["a.tif", "a.tif.aux.xml"]

    @pytest.mark.parametrize(
        "place",
        [
            {"crs": "EPSG:4326", "transform": Affine(0.1, 0.05, 10, 0.02, -0.1, 50)},
            {"crs": "EPSG:4326", "gcps": [GroundControlPoint(0, 0, 10, 50), GroundControlPoint(9, 9, 11, 49),
                                          GroundControlPoint(0, 9, 11, 50)]},
        ],
        ids=["rotated", "ground control points"],
    )  # fmt: skip
    def test_other_georeferences_are_kept(self, segmenter, tmp_path, place):
        save_raster(tmp_path / "a.tif", noise(), **place)
        predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        with rasterio.open(tmp_path / "a.tif") as one, rasterio.open(tmp_path / "out" / "ids" / "a.tif") as other:
            assert one.transform == other.transform
            assert one.crs == other.crs
            assert [[point.x, point.y] for point in one.gcps[0]] == [[point.x, point.y] for point in other.gcps[0]]

    def test_without_a_crs_it_works_with_a_note(self, segmenter, tmp_path):
        save_raster(tmp_path / "a.tif", noise(), transform=PLACE["transform"])
        _, profile, said = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        assert profile["crs"] is None
        assert profile["transform"] == PLACE["transform"]
        assert f"note: {tmp_path / 'a.tif'}: has no coordinate reference system, and neither has its result\n" in said

    @pytest.mark.parametrize(
        ("values", "nodata"),
        [
            (noise(), 0),
            (noise().astype(np.uint16) * 257, 0),
            (noise().astype(np.float32) / 255, -9999.0),
            (noise().astype(np.float32) / 255, float("nan")),
            (noise().astype(np.float32) / 255, None),
        ],
        ids=["8 bits", "16 bits", "float", "NaN", "NaN that is not declared"],
    )
    def test_pixels_without_data_are_255_and_do_not_change_the_range(self, segmenter, tmp_path, values, nodata):
        values = values.copy()
        values[:, :, :40] = np.nan if nodata is None else nodata
        save_raster(tmp_path / "a.tif", values, nodata=nodata, **PLACE)
        ids, profile, _ = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        assert profile["nodata"] == 255
        assert (ids[:, :40] == 255).all()
        assert (ids[:, 40:] < 3).all()
        black = noise()
        black[:, :, :40] = 0
        assert np.array_equal(ids[:, 40:], expected(segmenter, black.transpose(1, 2, 0))[:, 40:])

    def test_one_band_without_data_is_not_enough(self, segmenter, tmp_path):
        values = noise()
        values[2] = 0
        save_raster(tmp_path / "a.tif", values, nodata=0, **PLACE)
        assert (predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")[0] < 3).all()

    def test_no_data_anywhere_works_with_a_note(self, segmenter, tmp_path):
        save_raster(tmp_path / "a.tif", np.zeros((3, 50, 60), np.uint8), nodata=0, **PLACE)
        ids, _, said = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        assert (ids == 255).all()
        assert "a.tif: has no data in any pixel" in said

    def test_bands_and_range_are_chosen(self, segmenter, tmp_path):
        values = np.concatenate([noise()[::-1], noise()[:1]]).astype(np.int16) * 16
        save_raster(tmp_path / "a.tif", values, **PLACE)
        ids, _, _ = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out", "--bands", "3,2,1", "--range", "0,4080")
        assert np.array_equal(ids, expected(segmenter, noise().transpose(1, 2, 0)))

    @pytest.mark.parametrize(
        ("values", "words", "told"),
        [
            (noise(bands=4), [], "has 4 bands of uint8; choose three"),
            (noise(), ["--bands", "1,2,9"], "has 3 bands, no band 9; choose three"),
            (noise().astype(np.int16), [], "has int16 values from 1 to 255; set the values"),
            (noise().astype(np.float32), [], "has float32 values from 1 to 255; set the values"),
            (noise().astype(np.complex64), [], "has values of type complex64, complex64, complex64, which no image has"),
        ],
        ids=["four bands", "a missing band", "signed", "float", "complex"],
    )  # fmt: skip
    def test_what_is_ambiguous_is_refused_and_leaves_no_file(self, segmenter, tmp_path, values, words, told):
        save_raster(tmp_path / "a.tif", values, photometric="MINISBLACK", **PLACE)
        refused("predict", segmenter, tmp_path / "a.tif", "--out", tmp_path / "out", *words, telling=f"a.tif: {told}")
        assert not (tmp_path / "out" / "ids").exists() or not list((tmp_path / "out" / "ids").iterdir())

    @pytest.mark.parametrize("transparent", [True, False])
    def test_transparency_is_a_mask_and_infrared_of_that_name_is_not(self, segmenter, tmp_path, transparent):
        values = noise(bands=4)
        values[3] = np.where(np.arange(130) < 40, 0, 255) if transparent else values[3]
        with rasterio.open(
            tmp_path / "a.tif", "w", driver="GTiff", count=4, height=100, width=130, dtype="uint8", photometric="RGB",
            alpha="yes", **PLACE,
        ) as file:  # fmt: skip
            file.write(values)
        if transparent:
            ids, _, _ = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
            assert (ids[:, :40] == 255).all()
            assert (ids[:, 40:] < 3).all()
        else:
            refused("predict", segmenter, tmp_path / "a.tif", telling="has 4 bands of uint8; choose three")
            words = ["--bands", "1,2,3"]
            assert (predicted(segmenter, tmp_path / "a.tif", tmp_path / "out", *words)[0] < 3).all()

    def test_a_palette_is_read_as_colours(self, segmenter, tmp_path):
        with rasterio.open(
            tmp_path / "a.tif", "w", driver="GTiff", count=1, height=100, width=130, dtype="uint8", **PLACE
        ) as file:
            file.write(noise()[:1])
            file.write_colormap(1, {value: (255 - value, value, 7) for value in range(256)})
        pixels = np.stack([255 - noise()[0], noise()[0], np.full((100, 130), 7, np.uint8)], axis=2)
        ids, _, _ = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        assert np.array_equal(ids, expected(segmenter, pixels))

    def test_a_truncated_file_is_one_line_and_leaves_no_file(self, segmenter, tmp_path):
        path = save_raster(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 9, (3, 300, 300), np.uint8), **PLACE)
        path.write_bytes(path.read_bytes()[: -3 * 300 * 100])
        refused("predict", segmenter, path, "--out", tmp_path / "out", telling="a.tif: cannot be read as an image (")
        assert not list((tmp_path / "out").rglob("*.tif*"))

    def test_windows_of_the_wanted_side_are_blended(self, segmenter, tmp_path):
        save_raster(tmp_path / "a.tif", noise(300, 400), **PLACE)
        ids, _, _ = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out", "--slide", 128)
        assert np.array_equal(ids, expected_in_windows(segmenter, noise(300, 400).transpose(1, 2, 0), 128))

    def test_overviews_are_inside(self, segmenter, tmp_path):
        save_raster(tmp_path / "a.tif", np.zeros((3, 16, 2100), np.uint8), **PLACE)
        predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        with rasterio.open(tmp_path / "out" / "ids" / "a.tif") as file:
            assert file.overviews(1) == [2, 4]

    def test_a_world_file_and_a_nodata_value_make_a_raster_and_pixels_alone_do_not(self, tmp_path):
        path = save_raster(tmp_path / "a.tif", noise())
        assert not is_raster(path)
        (tmp_path / "a.tfw").write_text("0.5\n0\n0\n-0.5\n300000\n5000000\n")
        assert is_raster(path)
        assert is_raster(save_raster(tmp_path / "b.tif", noise(), nodata=0))
        Image.new("L", (5, 5)).save(tmp_path / "c.png")
        assert not is_raster(tmp_path / "c.png")
        assert not is_raster(tmp_path / "gone.tif")

    def test_png_of_a_raster_and_geotiff_of_a_photo(self, segmenter, tmp_path):
        (tmp_path / "in").mkdir()
        save_raster(tmp_path / "in" / "a.tif", noise(), **PLACE)
        Image.fromarray(noise().transpose(1, 2, 0)).save(tmp_path / "in" / "b.png")
        for form in ("png", "geotiff"):
            code, said, _ = command("predict", segmenter, tmp_path / "in", "--out", tmp_path / form, "--format", form)
            assert code == 0
            assert ("b.png: has no coordinate reference system" in said) == (form == "geotiff")
        png = [np.asarray(Image.open(tmp_path / "png" / "ids" / f"{name}.png")) for name in "ab"]
        for name, ids in zip("ab", png, strict=True):
            assert np.array_equal(ids, png[0])
            with rasterio.open(tmp_path / "geotiff" / "ids" / f"{name}.tif") as file:
                assert np.array_equal(file.read(1), ids)

    def test_a_raster_for_another_format_must_fit_into_memory(self, segmenter, tmp_path, monkeypatch):
        save_raster(tmp_path / "a.tif", noise(), **PLACE)
        monkeypatch.setenv("CONTSEG_MAX_PIXELS", "5000")
        predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        refused("predict", segmenter, tmp_path / "a.tif", "--format", "png", telling="130x100 is more than 5000 pixels")

    def test_an_orientation_in_a_geotiff_is_not_applied(self, segmenter, tmp_path):
        """GIS programs ignore it, and the transform is that of the stored pixels."""
        exif = Image.Exif()
        exif[0x0112] = 6
        tags = {33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 300_000.0, 5_000_000.0, 0.0)}
        exif.update(tags)
        Image.fromarray(noise().transpose(1, 2, 0)).save(tmp_path / "a.tif", exif=exif, tiffinfo=exif)
        ids, profile, _ = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        assert profile["transform"] == PLACE["transform"]
        assert np.array_equal(ids, expected(segmenter, noise().transpose(1, 2, 0)))


def test_a_model_of_another_library_predicts_a_raster_in_windows_of_its_own_size(tmp_path):
    model = save_foreign("segformer", tmp_path / "segformer")
    save_raster(tmp_path / "a.tif", noise(100, 130), **PLACE)
    ids, profile, _ = predicted(model, tmp_path / "a.tif", tmp_path / "out")
    assert profile["crs"] is not None
    opened = open_model(model)
    windows = Inference(InferenceOptions(**opened.inference.options.model_dump() | {"mode": "slide", "crop": [64, 64]}))
    expected = np.empty((100, 130), np.uint8)
    for (rows, columns), part in predict_tiles(opened.segmenter, Photo(noise(100, 130).transpose(1, 2, 0)), windows):
        expected[rows, columns] = part
    assert np.array_equal(ids, np.array(opened.classes.ids, np.uint8)[expected])


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_the_mask_of_a_turned_photo_fits_what_a_viewer_shows(segmenter, tmp_path, suffix):
    upright = noise(48, 64).transpose(1, 2, 0)
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    (tmp_path / "in").mkdir()
    Image.fromarray(upright).save(tmp_path / "in" / f"1.{suffix}", **options)
    for tag in STORED:
        save_turned(upright, tmp_path / "in" / f"{tag}.{suffix}", tag, **options)
    assert command("predict", segmenter, tmp_path / "in", "--out", tmp_path / "out")[0] == 0
    for tag in range(1, 9):
        ids, overlay = (np.asarray(Image.open(tmp_path / "out" / kind / f"{tag}.png")) for kind in ("ids", "overlays"))
        assert ids.shape == overlay.shape[:2] == upright.shape[:2]
        assert (ids == expected(segmenter, upright)).mean() > (0.95 if suffix == "jpg" else 0.9999)


class TestFrames:
    def test_they_keep_their_order_and_folders(self, segmenter, tmp_path):
        for name in ("b/1.png", "a/frame10.png", "a/frame9.png"):
            (tmp_path / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(24, 32).transpose(1, 2, 0)).save(tmp_path / "frames" / name)
        seen = []
        write = predict_images.Predictor.predict
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                predict_images.Predictor, "predict", lambda self, path, *rest: seen.append(path) or write(self, path, *rest)
            )
            assert command("predict", segmenter, tmp_path / "frames", "--out", tmp_path / "out")[0] == 0
        assert [path.relative_to(tmp_path / "frames").as_posix() for path in seen] == [
            "a/frame9.png",
            "a/frame10.png",
            "b/1.png",
        ]
        assert (tmp_path / "out" / "overlays" / "a" / "frame10.png").is_file()

    def test_a_video_is_refused_with_the_command_that_extracts_its_frames(self, segmenter, tmp_path):
        (tmp_path / "a.mp4").write_bytes(bytes(9))
        refused("predict", segmenter, tmp_path / "a.mp4", telling="a.mp4: is a video; extract its frames")


class TestProgress:
    def test_a_log_has_a_line_with_the_time_left_every_30_seconds(self):
        seconds = iter([0, 10, 31, 40, 100])
        with console.capture() as capture, progress_of("predicting", 4, lambda: next(seconds)) as progress:
            for done in (0.25, 0.5, 0.75):
                progress(0, "a.tif", done)
            progress(2, "b.tif", 0)
        assert capture.get() == (
            "predicting: 0 of 4 images, a.tif 50%, 3 min 37 s left\npredicting: 2 of 4 images, b.tif 0%, 1 min 40 s left\n"
        )


class TestMemory:
    def failing(self, monkeypatch, error: Exception, most: int) -> list[tuple[int, ...]]:
        """Networks fail for images of more than `most` pixels; returns the shapes of the images they see."""
        shapes: list[tuple[int, ...]] = []
        forward = Segmenter.forward

        def limited(self, images, *rest, **options):
            shapes.append(tuple(images.shape[2:]))
            if images.shape[2] * images.shape[3] > most:
                raise error
            return forward(self, images, *rest, **options)

        monkeypatch.setattr(Segmenter, "forward", limited)
        return shapes

    @pytest.mark.parametrize(
        "error",
        [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 bytes")],
        ids=["host", "GPU", "allocator"],
    )
    def test_a_photo_falls_back_to_windows_and_so_do_later_ones(self, segmenter, tmp_path, monkeypatch, error):
        (tmp_path / "in").mkdir()
        for name in ("a", "b"):
            Image.fromarray(noise(200, 300).transpose(1, 2, 0)).save(tmp_path / "in" / f"{name}.png")
        shapes = self.failing(monkeypatch, error, 100 * 100)
        code, said, errors = command("predict", segmenter, tmp_path / "in", "--out", tmp_path / "out")
        assert (code, errors) == (0, "")
        tried = list(dict.fromkeys(shapes))
        assert tried == [(200, 300), (200, 200), (100, 100)]
        assert shapes.count((200, 300)) == 1
        assert "a.png: not enough memory for 300x200 pixels; predicted in windows of 100 pixels" in said
        assert "b.png: not enough" not in said
        monkeypatch.undo()
        blended = expected_in_windows(segmenter, noise(200, 300).transpose(1, 2, 0), 100)
        for name in ("a", "b"):
            assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "ids" / f"{name}.png")), blended)

    def test_a_raster_falls_back_to_smaller_windows(self, segmenter, tmp_path, monkeypatch):
        save_raster(tmp_path / "a.tif", noise(200, 300), **PLACE)
        shapes = self.failing(monkeypatch, MemoryError(), 100 * 100)
        ids, _, said = predicted(segmenter, tmp_path / "a.tif", tmp_path / "out")
        assert (ids < 3).all()
        assert shapes[-1] == (100, 100)
        assert "predicted in windows of 100 pixels" in said

    @pytest.mark.parametrize("image", ["a.tif", "a.png"])
    def test_never_enough_memory_is_one_line(self, segmenter, tmp_path, monkeypatch, image):
        save_raster(tmp_path / "a.tif", noise(200, 300), **PLACE)
        Image.fromarray(noise(200, 300).transpose(1, 2, 0)).save(tmp_path / "a.png")
        self.failing(monkeypatch, MemoryError(), 0)
        refused(
            "predict", segmenter, tmp_path / image, "--out", tmp_path / "out",
            telling=f"{image}: not enough memory for 300x200 pixels, even in windows",
        )  # fmt: skip
        assert not list((tmp_path / "out").rglob("*.tif*"))


class TestAFullDisk:
    @pytest.mark.parametrize(
        ("form", "most"),
        [
            ("geotiff", 600),
            pytest.param("geotiff", 300, marks=pytest.mark.slow),
            pytest.param("geotiff", 3000, marks=pytest.mark.slow),
            pytest.param("png", 600, marks=pytest.mark.slow),
        ],
    )
    def test_it_is_one_line_and_leaves_no_half_raster(self, segmenter, tmp_path, form, most):
        """A limit on the size of files acts like a full disk."""
        save_raster(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 256, (3, 200, 300), np.uint8), **PLACE)
        script = f"""
            import resource, signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))
            from contseg.cli.main import main
            main()
        """
        words = ["predict", segmenter, tmp_path / "a.tif", "--out", tmp_path / "out", "--format", form]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        last = done.stderr.splitlines()[-1]
        assert re.match(rf"error: {tmp_path / 'out'}\S*: cannot be written \(", last), last
        assert last.endswith(("make room, or change --out", "free some space, or use another folder"))
        assert not list((tmp_path / "out").rglob("*.tif*"))


@pytest.mark.slow
def test_6000_by_6000_pixels_and_21_classes_take_less_than_1_5_gib(tmp_path):
    network = Segmenter(NetworkOptions(backbone="resnet18", width=4, head_width=8, output_stride=16), [21])
    save_segmenter(tmp_path / "s.safetensors", network, ClassTable.of([f"class {number}" for number in range(21)]))
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=3, height=6000, width=6000, dtype="uint16", tiled=True,
        compress="deflate", **PLACE,
    ) as file:  # fmt: skip
        for top in range(0, 6000, 256):
            rows = min(256, 6000 - top)
            file.write(noise(rows, 6000).astype(np.uint16) * 257, window=((top, top + rows), (0, 6000)))
    script = """
        import atexit, resource
        atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        from contseg.cli.main import main
        main()
    """
    words = ["predict", tmp_path / "s.safetensors", tmp_path / "a.tif", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.splitlines()[-1]) * 1024 < 1.5 * 2**30
    with rasterio.open(tmp_path / "out" / "ids" / "a.tif") as file:
        assert (file.height, file.width, file.crs.to_epsg()) == (6000, 6000, 32633)

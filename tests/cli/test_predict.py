"""`contseg predict` on folders as people have them: bad files, other formats, links, its own results, deep pictures."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.cli.predict_record import MARKER
from contseg.data.classes import ClassTable
from contseg.interop.segmenter_file import save_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from tests.cli.test_bad_input import refused
from tests.engine.runs import command


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """The default output folder is in the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.safetensors"
    network = Segmenter(NetworkOptions(backbone="resnet18", width=4, head_width=8, output_stride=8), [3])
    save_segmenter(path, network, ClassTable.of(["background", "cat", "dog"]))
    return path


def picture(path: Path, height: int = 24, width: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def written(out: Path, kind: str = "ids") -> list[str]:
    return sorted(path.relative_to(out / kind).as_posix() for path in (out / kind).rglob("*") if path.is_file())


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("0.png", "1.png", "2.png"):
        picture(tmp_path / "photos" / name)
    return tmp_path / "photos"


def truncate(path: Path) -> None:
    path.write_bytes(picture(path).read_bytes()[:400])


BAD = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "truncated": (truncate, "cannot be read as an image"),
    "tiny": (lambda path: picture(path, 6, 6), "smaller than the network's output stride of 8"),
    "broken link": (lambda path: path.symlink_to("/gone.png"), "image not found"),
    "no picture": (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "none of JPEG, PNG"),
}


class TestBadFiles:
    @pytest.mark.parametrize("kind", BAD)
    def test_the_others_are_predicted_and_the_bad_one_is_listed(self, segmenter, photos, tmp_path, kind):
        spoil, told = BAD[kind]
        spoil(photos / "0bad.png")
        code, said, errors = command("predict", segmenter, photos, "--out", tmp_path / "out")
        assert code == 2
        assert errors == (
            f"error: {photos}: 1 of 4 images not predicted, as listed above; 3 results in {tmp_path / 'out'}\n"
        )
        (line,) = (line for line in said.splitlines() if line.startswith("not predicted: "))
        assert line.startswith(f"not predicted: {photos / '0bad.png'}: ")
        assert told in line
        for kind in ("ids", "colours", "overlays"):
            assert written(tmp_path / "out", kind) == ["0.png", "1.png", "2.png"]

    @pytest.mark.parametrize("kind", BAD)
    def test_a_bad_image_alone_is_one_line(self, segmenter, tmp_path, kind):
        spoil, told = BAD[kind]
        path = tmp_path / "in" / "bad.png"
        path.parent.mkdir()
        spoil(path)
        refused("predict", segmenter, path.parent, "--out", tmp_path / "out", telling=told)

    def test_hidden_files_and_folders_named_like_images_are_no_images(self, segmenter, photos, tmp_path):
        (photos / "._0.png").write_bytes(b"\0\5\x16\7Mac OS X")
        picture(photos / ".ipynb_checkpoints" / "0.png")
        (photos / "folder.png").mkdir()
        code, said, _ = command("predict", segmenter, photos, "--out", tmp_path / "out")
        assert code == 0
        assert "3 images: " in said

    def test_formats_that_are_not_read_are_named(self, segmenter, photos, tmp_path):
        for name in ("a.gif", "b.HEIC", "c.gif", "notes.txt"):
            (photos / name).touch()
        code, said, _ = command("predict", segmenter, photos, "--out", tmp_path / "out")
        assert code == 0
        assert "skipped 3 pictures of formats that are not read (.gif 2, .heic 1); convert them to PNG or JPEG" in said
        (tmp_path / "only").mkdir()
        (tmp_path / "only" / "a.heic").touch()
        refused(
            "predict",
            segmenter,
            tmp_path / "only",
            telling="contains no images (.jpg, .jpeg, .png, .bmp, .webp, .tif, .tiff); skipped 1",
        )

    def test_a_linked_folder_is_followed_once(self, segmenter, photos, tmp_path):
        picture(tmp_path / "far" / "3.png")
        (photos / "site").symlink_to(tmp_path / "far")
        (tmp_path / "far" / "back").symlink_to(photos)
        code, _, _ = command("predict", segmenter, photos, "--out", tmp_path / "out")
        assert code == 0
        assert written(tmp_path / "out") == ["0.png", "1.png", "2.png", "site/3.png"]


class TestItsOwnResults:
    @pytest.mark.parametrize("out", ["predictions", ".", "deep/er"])
    def test_they_are_no_images_the_next_time(self, segmenter, photos, out):
        for _ in range(3):
            code, said, _ = command("predict", segmenter, photos, "--out", photos / out)
            assert code == 0
            assert "3 images: " in said
        assert written(photos / out) == ["0.png", "1.png", "2.png"]

    def test_nor_are_those_of_another_folder_or_of_a_run_that_was_stopped_or_left_no_marker(self, segmenter, photos):
        command("predict", segmenter, photos, "--out", photos / "one")
        command("predict", segmenter, photos, "--out", photos / "two")
        (photos / "one" / MARKER).unlink()
        (photos / "two" / "overlays" / "0.png").unlink()
        code, said, _ = command("predict", segmenter, photos, "--out", photos / "three")
        assert code == 0
        assert "3 images: " in said

    def test_images_of_the_user_in_a_folder_of_such_a_name_are_predicted(self, segmenter, photos):
        picture(photos / "ids" / "mine.png")
        for _ in range(2):
            code, said, _ = command("predict", segmenter, photos, "--out", photos)
            assert code == 0
            assert "4 images: " in said

    def test_results_can_be_predicted_where_they_are_asked_for(self, segmenter, photos, tmp_path):
        command("predict", segmenter, photos, "--out", tmp_path / "a")
        code, said, _ = command("predict", segmenter, tmp_path / "a" / "overlays", "--out", tmp_path / "b")
        assert code == 0
        assert "3 images: " in said

    @pytest.mark.parametrize("images", ["a/ids", "a/overlays/0.png", "a/colours"])
    def test_no_input_is_overwritten(self, segmenter, photos, tmp_path, images):
        command("predict", segmenter, photos, "--out", tmp_path / "a")
        before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
        refused(
            "predict", segmenter, tmp_path / images, "--out", tmp_path / "a",
            telling="is an image to predict and would be overwritten; choose another folder with --out",
        )  # fmt: skip
        assert before == {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}

    def test_no_two_images_get_one_name(self, segmenter, tmp_path):
        for name in ("a.png", "a.jpg", "a.png.png", "A.bmp", "b.tif"):
            picture(tmp_path / "in" / name)
        code, _, _ = command("predict", segmenter, tmp_path / "in", "--out", tmp_path / "out")
        assert code == 0
        assert written(tmp_path / "out") == ["A.bmp.png", "a.jpg.png", "a.png.png", "a.png.png.png", "b.png"]


class TestReading:
    def test_a_photo_is_predicted_upright(self, segmenter, tmp_path):
        upright = picture(tmp_path / "upright.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(upright).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
        for name in ("upright", "turned"):
            assert command("predict", segmenter, tmp_path / f"{name}.png", "--out", tmp_path / "out")[0] == 0
        for kind in ("ids", "overlays"):
            one, other = (np.asarray(Image.open(tmp_path / "out" / kind / f"{name}.png")) for name in ("upright", "turned"))
            assert one.shape[:2] == (24, 32)
            assert np.array_equal(one, other)

    def test_bands_and_range_are_chosen(self, segmenter, tmp_path):
        pixels = np.asarray(Image.open(picture(tmp_path / "a.png")))
        Image.fromarray(np.dstack([pixels[..., ::-1], pixels[..., 0] // 2])).save(tmp_path / "b.tif")
        refused(
            "predict",
            segmenter,
            tmp_path / "b.tif",
            telling="has 4 bands of uint8, the last of them not a mask; choose three",
        )
        for name, words in {"a.png": [], "b.tif": ["--bands", "3,2,1"]}.items():
            code, _, _ = command("predict", segmenter, tmp_path / name, "--out", tmp_path / "out", *words)
            assert code == 0
        one, other = (np.asarray(Image.open(tmp_path / "out" / "ids" / f"{name}.png")) for name in "ab")
        assert np.array_equal(one, other)
        Image.fromarray((pixels[..., 0].astype(np.uint16)) * 16).save(tmp_path / "c.png")
        code, said, _ = command("predict", segmenter, tmp_path / "c.png", "--out", tmp_path / "out", "--range", "0,4080")
        assert code == 0
        assert "c.png: 16 bits, of which 0 to 4080 become 0 to 255" in said
        refused("predict", segmenter, tmp_path / "c.png", "--range", "9,0", telling="--range: expected [LOW, HIGH]")
        refused(
            "predict",
            segmenter,
            tmp_path / "c.png",
            "--bands",
            "1,2",
            telling="--bands: expected the numbers of three bands",
        )

    def test_too_many_pixels_are_one_line_and_are_read_where_they_are_allowed(
        self, segmenter, photos, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("CONTSEG_MAX_PIXELS", "700")
        refused("predict", segmenter, photos / "0.png", telling="0.png: 32x24 is more than 700 pixels; cut it")
        monkeypatch.setenv("CONTSEG_MAX_PIXELS", "768")
        code, _, _ = command("predict", segmenter, photos / "0.png", "--slide", 16, "--out", tmp_path / "out")
        assert code == 0


FORMATS = {
    "png": "ids/0.png",
    "labelme": "0.json",
    "coco": "annotations.json",
    "cvat": "SegmentationClass/0.png",
}


class TestFilesOfTheUser:
    @pytest.mark.parametrize(
        "name", [*FORMATS.values(), "overlays/2.png", "labelmap.txt", "ImageSets/Segmentation/default.txt"]
    )
    def test_a_file_that_is_no_result_is_not_overwritten(self, segmenter, photos, tmp_path, name):
        out = tmp_path / "out"
        mine = out / name
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("made by hand")
        form = next((form for form, file in FORMATS.items() if file == name), "png" if name.endswith(".png") else "cvat")
        before = sorted(out.rglob("*"))
        refused(
            "predict", segmenter, photos, "--out", out, "--format", form,
            telling=f"{mine}: exists, and contseg predict did not write it; move it, or choose another folder with --out",
        )  # fmt: skip
        assert mine.read_text() == "made by hand"
        assert sorted(out.rglob("*")) == before

    @pytest.mark.parametrize("form", FORMATS)
    def test_a_result_is_overwritten_until_it_is_corrected_by_hand(self, segmenter, photos, tmp_path, form):
        command_line = ("predict", segmenter, photos, "--out", tmp_path / "out", "--format", form)
        for _ in range(2):
            assert command(*command_line)[0] == 0
        result = tmp_path / "out" / FORMATS[form]
        result.write_bytes(result.read_bytes() + b" ")
        before = result.read_bytes()
        refused(*command_line, telling=f"{result}: was changed after it was predicted; move it to keep it")
        assert result.read_bytes() == before

    def test_an_image_that_could_not_be_predicted_has_no_result_to_overwrite(self, segmenter, photos, tmp_path):
        (photos / "0bad.png").write_bytes(b"")
        mine = tmp_path / "out" / "ids" / "0bad.png"
        assert command("predict", segmenter, photos, "--out", tmp_path / "out")[0] == 2
        mine.write_text("made by hand")
        refused("predict", segmenter, photos, "--out", tmp_path / "out", telling=f"{mine}: exists, and contseg predict did")
        assert mine.read_text() == "made by hand"

    def test_results_of_a_command_that_was_killed_are_overwritten(self, segmenter, photos, tmp_path):
        assert command("predict", segmenter, photos, "--out", tmp_path / "out")[0] == 0
        names = json.loads((tmp_path / "out" / MARKER).read_text())
        (tmp_path / "out" / MARKER).write_text(json.dumps(dict.fromkeys(names)))
        (tmp_path / "out" / "ids" / "0.png").write_bytes(b"half")
        assert command("predict", segmenter, photos, "--out", tmp_path / "out")[0] == 0


@pytest.mark.slow
def test_a_killed_command_leaves_whole_files_and_repeated_it_ends_the_same(segmenter, tmp_path):
    for number in range(60):
        picture(tmp_path / "photos" / f"{number}.png")
    line = [sys.executable, "-m", "contseg", "predict", segmenter, tmp_path / "photos", "--out"]
    subprocess.run([*map(str, line), tmp_path / "whole"], check=True, stdout=subprocess.DEVNULL)
    expected = {path.relative_to(tmp_path / "whole"): path.read_bytes() for path in (tmp_path / "whole").rglob("*.*")}
    kills = 0
    for wanted in (3, 40, 120):
        process = subprocess.Popen([*map(str, line), tmp_path / "killed"], stdout=subprocess.DEVNULL)
        shutil.rmtree(tmp_path / "killed" / "overlays", ignore_errors=True)
        while process.poll() is None and len(list((tmp_path / "killed").glob("overlays/*.png"))) < wanted // 3:
            time.sleep(0.002)
        kills += process.poll() is None
        process.kill()
        process.wait()
        for path in (tmp_path / "killed").rglob("*.png"):
            assert path.read_bytes() == expected[path.relative_to(tmp_path / "killed")]
    assert kills >= 2
    subprocess.run([*map(str, line), tmp_path / "killed"], check=True, stdout=subprocess.DEVNULL)
    found = {path.relative_to(tmp_path / "killed"): path.read_bytes() for path in (tmp_path / "killed").rglob("*.*")}
    assert found == expected

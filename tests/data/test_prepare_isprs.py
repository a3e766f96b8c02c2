"""`contseg prepare isprs`: official tiles become numbered patches, whatever happens on the way."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from contseg.data.datasets.isprs import ISPRS
from contseg.data.isprs.tiles import OFFICIAL, find_tiles, number_tiles
from tests.engine.runs import command
from tests.trees.isprs import (
    COLOURS,
    potsdam_files,
    tile_pixels,
    vaihingen_files,
    write_potsdam,
    write_raster,
    write_vaihingen,
)

PER_TILE = 9  # 120 pixels in patches of 40
NAMES = [name for names in OFFICIAL["potsdam"].values() for name in names]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """The tiles of both cities; not to be changed."""
    root = tmp_path_factory.mktemp("official")
    write_potsdam(root / "potsdam")
    write_vaihingen(root / "vaihingen")
    return root


@pytest.fixture
def potsdam(tmp_path):
    """Tiles of Potsdam, to be broken."""
    return write_potsdam(tmp_path / "potsdam")


def prepare(out: Path, *arguments, patch: int = 40) -> tuple[int, str, str]:
    return command("prepare", "isprs", "--out", out, "--patch", patch, *arguments)


def refused(out: Path, *arguments, telling: str, patch: int = 40) -> str:
    code, said, errors = prepare(out, *arguments, patch=patch)
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert telling in line
    return said


def patches(out: Path, kind: str = "images") -> list[int]:
    """The numbers of all patches."""
    return sorted(int(path.stem) for path in (out / kind).rglob("*.png"))


def patch(out: Path, kind: str, number: int) -> np.ndarray:
    (path,) = (out / kind).rglob(f"{number:05d}.png")
    return np.asarray(Image.open(path))


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def numbers_of(name: str) -> set[int]:
    first = 1 + NAMES.index(name) * PER_TILE
    return set(range(first, first + PER_TILE))


@pytest.fixture(scope="module")
def prepared(tiles, tmp_path_factory):
    """Both cities, cut, and what the command said."""
    out = tmp_path_factory.mktemp("prepared") / "isprs"
    code, said, errors = prepare(out, "--potsdam", tiles / "potsdam", "--vaihingen", tiles / "vaihingen")
    assert (code, errors) == (0, "")
    return out, said


class TestPatches:
    def test_the_dataset_opens_what_was_cut(self, prepared):
        dataset = ISPRS(prepared[0])
        # the first area is 130 wide: 4 patches in a row and not 3
        assert len(dataset.names("train")) == 23 * PER_TILE + 15 * 9 + 12
        assert len(dataset.names("test")) == 14 * PER_TILE + 17 * 9
        for name in (dataset.names("train")[0], dataset.names("test")[-1]):
            image, mask = dataset.read(name)
            assert image.shape == (40, 40, 3)
            assert set(np.unique(mask)) == set(range(6))

    @pytest.mark.parametrize("name", ["2_10", "6_7", "7_12", "2_13", "7_13"])
    def test_patches_are_the_tile_row_by_row(self, prepared, name):
        image, ids = tile_pixels(name, 120, 120)
        for index, number in enumerate(sorted(numbers_of(name))):
            top, left = index // 3 * 40, index % 3 * 40
            window = np.s_[top : top + 40, left : left + 40]
            assert np.array_equal(patch(prepared[0], "images", number), image[window])
            assert np.array_equal(patch(prepared[0], "annotations", number), ids[window])

    def test_the_last_row_and_column_are_shifted_back_into_the_tile(self, prepared):
        image, ids = tile_pixels("area1", 100, 130)
        places = [(top, left) for top in (0, 40, 60) for left in (0, 40, 80, 90)]
        for number, (top, left) in enumerate(places, 10001):
            window = np.s_[top : top + 40, left : left + 40]
            assert np.array_equal(patch(prepared[0], "images", number), image[window])
            assert np.array_equal(patch(prepared[0], "annotations", number), ids[window])

    def test_vaihingen_is_numbered_from_10001_training_first(self, prepared):
        dataset = ISPRS(prepared[0])
        vaihingen = {
            subset: [int(name) for name in dataset.names(subset) if dataset.domain_of(name) == "vaihingen"]
            for subset in ("train", "test")
        }
        assert vaihingen["train"] == list(range(10001, 10001 + 147))
        assert vaihingen["test"] == list(range(10148, 10148 + 153))

    def test_the_faulty_tile_is_named_and_left_out_and_its_numbers_stay_free(self, prepared):
        out, said = prepared
        assert "tile 7_10 is left out because its annotation is faulty" in said
        potsdam = {number for number in patches(out) if number < 10000}
        assert potsdam == set(range(1, 38 * PER_TILE + 1)) - numbers_of("7_10")
        assert len(numbers_of("7_10") & set(range(190, 199))) == 9  # the 22nd of 24

    def test_the_faulty_tile_is_cut_if_asked_for_and_others_can_be_left_out(self, tiles, tmp_path):
        code, said, _ = prepare(tmp_path, "--potsdam", tiles / "potsdam", "--keep-faulty", "--skip-tile", "6_7")
        assert code == 0
        assert "7_10" not in said
        assert set(patches(tmp_path)) == set(range(1, 38 * PER_TILE + 1)) - numbers_of("6_7")
        assert np.array_equal(patch(tmp_path, "images", min(numbers_of("7_11"))), tile_pixels("7_11", 120, 120)[0][:40, :40])

    def test_leaving_an_area_out_moves_no_other(self, tiles, prepared, tmp_path):
        assert prepare(tmp_path, "--vaihingen", tiles / "vaihingen", "--skip-tile", "area3")[0] == 0
        left = {number for number in patches(prepared[0]) if number > 10000} - set(range(10013, 10022))
        assert set(patches(tmp_path)) == left
        assert all(np.array_equal(patch(tmp_path, "images", n), patch(prepared[0], "images", n)) for n in sorted(left)[::20])

    def test_one_city_can_follow_the_other(self, tiles, prepared, tmp_path):
        for city in ("potsdam", "vaihingen"):
            assert prepare(tmp_path, f"--{city}", tiles / city)[0] == 0
        assert contents(tmp_path) == contents(prepared[0])

    def test_the_number_of_workers_changes_nothing(self, tiles, prepared, tmp_path):
        assert prepare(tmp_path, "--potsdam", tiles / "potsdam", "--workers", 1)[0] == 0
        expected = contents(prepared[0])
        for path, content in contents(tmp_path).items():
            assert path == "prepared.json" or content == expected[path]

    def test_at_600_pixels_potsdam_has_the_published_numbers(self, tmp_path):
        for name in NAMES:
            for path in potsdam_files(tmp_path, name):
                path.parent.mkdir(exist_ok=True)
                profile = {"driver": "GTiff", "height": 6000, "width": 6000, "count": 3, "dtype": "uint8"}
                rasterio.open(path, "w", **profile, sparse_ok=True, tiled=True).close()
        numbered = number_tiles("potsdam", find_tiles("potsdam", tmp_path), {"6_7"}, 600)
        windows = {one.tile.name: one.windows(600) for one in numbered}
        assert (windows["2_10"][0], windows["2_10"][-1]) == ((1, 0, 0), (100, 5400, 5400))
        assert windows["7_12"][-1][0] == 2400
        assert (windows["2_13"][0][0], windows["7_13"][-1][0]) == (2401, 3800)
        assert {number for places in windows.values() for number, _, _ in places} == {*range(1, 1201), *range(1301, 3801)}


class TestGoingOn:
    def test_what_is_there_is_not_written_again(self, tiles, tmp_path):
        prepare(tmp_path, "--potsdam", tiles / "potsdam")
        gone = [
            next(tmp_path.rglob(f"{kind}/*/00{number:03d}.png")) for kind, number in (("images", 5), ("annotations", 77))
        ]
        before = contents(tmp_path)
        for path in gone:
            path.unlink()
        times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png") if int(path.stem) not in (5, 77)}
        assert prepare(tmp_path, "--potsdam", tiles / "potsdam")[0] == 0
        assert contents(tmp_path) == before
        assert all(path.stat().st_mtime_ns == when for path, when in times.items())

    @pytest.mark.slow
    def test_a_killed_run_goes_on_to_the_same_patches(self, tiles, prepared, tmp_path):
        arguments = ["--potsdam", tiles / "potsdam", "--vaihingen", tiles / "vaihingen", "--workers", "1"]
        line = [sys.executable, "-m", "contseg", "prepare", "isprs", "--out", tmp_path, "--patch", "40", *arguments]
        kills = 0
        for wanted in (10, 150, 340, 450):
            process = subprocess.Popen(list(map(str, line)), stdout=subprocess.DEVNULL)
            while process.poll() is None and len(patches(tmp_path, "images")) < wanted:
                time.sleep(0.005)
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            for path in tmp_path.rglob("*.png"):
                assert np.asarray(Image.open(path)).shape[:2] == (40, 40)
        assert kills >= 3
        refused_by_dataset = command("data", "check", "isprs", tmp_path)
        assert "are missing; run contseg prepare isprs again" in refused_by_dataset[2]
        subprocess.run(list(map(str, line)), check=True, stdout=subprocess.DEVNULL)
        assert contents(tmp_path) == contents(prepared[0])

    def test_other_parameters_are_refused_unless_all_is_cut_again(self, tiles, prepared, tmp_path):
        both = ["--potsdam", tiles / "potsdam", "--vaihingen", tiles / "vaihingen"]
        assert prepare(tmp_path, *both, patch=60)[0] == 0
        refused(tmp_path, *both, telling=f"{tmp_path}: was cut with --patch 60, not 40; --overwrite cuts again")
        assert prepare(tmp_path, *both, "--overwrite")[0] == 0
        assert contents(tmp_path) == contents(prepared[0])

    def test_a_tile_that_was_cut_cannot_be_left_out_later(self, tiles, tmp_path):
        arguments = ["--potsdam", tiles / "potsdam"]
        prepare(tmp_path, *arguments)
        refused(tmp_path, *arguments, "--skip-tile", "6_7", telling="contains patches of tile 6_7, which is left out now")
        assert prepare(tmp_path, *arguments, "--keep-faulty")[0] == 0  # one more is welcome
        assert len(patches(tmp_path)) == 38 * PER_TILE

    def test_overwriting_one_city_leaves_the_other(self, tiles, tmp_path):
        for city in ("potsdam", "vaihingen"):
            prepare(tmp_path, f"--{city}", tiles / city)
        assert prepare(tmp_path, "--potsdam", tiles / "potsdam", "--overwrite", patch=60)[0] == 0
        assert len([number for number in patches(tmp_path) if number < 10000]) == 37 * 4
        assert len([number for number in patches(tmp_path) if number > 10000]) == 300
        assert set(json.loads((tmp_path / "prepared.json").read_text())) == {"potsdam", "vaihingen"}

    def test_patches_of_unknown_origin_are_not_mixed_with(self, tiles, tmp_path):
        (tmp_path / "images" / "training").mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / "training" / "09999.png")
        refused(
            tmp_path,
            "--potsdam",
            tiles / "potsdam",
            telling="09999.png: exists, but there is no prepared.json with",
        )
        refused(tmp_path, "--potsdam", tiles / "potsdam", "--overwrite", telling="09999.png: exists, and prepared.json does")
        assert patches(tmp_path) == [9999]

    @pytest.mark.parametrize("record", ["{", "[]", '{"potsdam": 3}', '{"potsdam": {"complete": false}}'])
    def test_a_broken_record_is_told(self, tiles, tmp_path, record):
        (tmp_path / "prepared.json").write_text(record)
        refused(tmp_path, "--potsdam", tiles / "potsdam", telling="prepared.json: ")
        assert prepare(tmp_path, "--potsdam", tiles / "potsdam", "--overwrite")[0] == 0


class TestColours:
    def test_a_colour_that_is_no_class_stops_its_tile_alone(self, potsdam, tmp_path):
        _, label = potsdam_files(potsdam, "4_12")
        colours = COLOURS[tile_pixels("4_12", 120, 120)[1]]
        colours[0, :7], colours[119, 1] = (252, 255, 0), (1, 2, 3)
        write_raster(label, colours)
        telling = f"{label}: tile 4_12 has 8 pixels in 2 colours of no class: (252, 255, 0) 7x, (1, 2, 3) 1x"
        refused(tmp_path / "out", "--potsdam", potsdam, telling=telling)
        assert len(patches(tmp_path / "out")) == 36 * PER_TILE
        refused(tmp_path / "out", "--potsdam", potsdam, telling="leave the tile out with --skip-tile 4_12")
        assert prepare(tmp_path / "out", "--potsdam", potsdam, "--skip-tile", "4_12")[0] == 0
        assert len(ISPRS(tmp_path / "out").names("train")) == 22 * PER_TILE

    def test_of_many_colours_the_five_most_frequent_are_named(self, potsdam, tmp_path):
        _, label = potsdam_files(potsdam, "2_10")
        write_raster(label, np.tile(np.arange(120, dtype=np.uint8)[:, None, None], (1, 120, 3)))
        said = refused(tmp_path / "out", "--potsdam", potsdam, telling="14400 pixels in 120 colours of no class: (0, 0, 0)")
        assert said.count("2_10") == 0

    def test_every_tile_that_fails_is_told(self, potsdam, tmp_path):
        for name in ("2_10", "3_13"):
            write_raster(potsdam_files(potsdam, name)[1], np.full((120, 120, 3), 7, dtype=np.uint8))
        said = refused(tmp_path / "out", "--potsdam", potsdam, telling="2 tiles could not be cut, as listed above")
        assert "tile 2_10 has 14400 pixels in 1 colours" in said
        assert "tile 3_13 has 14400 pixels in 1 colours" in said


SPOILT = {
    "no raster": (0, lambda path: path.write_text("hello"), "top_potsdam_5_11_RGB.tif: cannot be read as a raster"),
    "cut off": (1, lambda path: path.write_bytes(path.read_bytes()[:9000]), "top_potsdam_5_11_label.tif: cannot be read"),
    "one band": (1, lambda path: write_raster(path, np.zeros((120, 120, 1), dtype=np.uint8)), "has 1 bands of uint8"),
    "16 bits": (0, lambda path: write_raster(path, np.zeros((120, 120, 3), dtype=np.uint16)), "3 bands of uint16"),
    "label smaller": (
        1,
        lambda path: write_raster(path, np.zeros((120, 90, 3), dtype=np.uint8)),
        "top_potsdam_5_11_label.tif: is 90x120 but its image is 120x120",
    ),
}


class TestMistakes:
    def test_all_that_is_absent_is_named_before_anything_is_written(self, potsdam, tmp_path):
        potsdam_files(potsdam, "3_10")[0].unlink()
        potsdam_files(potsdam, "3_10")[1].unlink()
        potsdam_files(potsdam, "7_13")[1].unlink()
        potsdam_files(potsdam, "7_10")[1].unlink()  # left out anyway
        said = refused(tmp_path / "out", "--potsdam", potsdam, telling="3 files are missing; --allow-missing cuts")
        absent = [line for line in said.splitlines() if "not found" in line]
        assert absent == [
            "potsdam tile 3_10: image top_potsdam_3_10_RGB.tif not found",
            "potsdam tile 3_10: label top_potsdam_3_10_label.tif not found",
            "potsdam tile 7_13: label top_potsdam_7_13_label.tif not found",
        ]
        assert not (tmp_path / "out").exists()

    def test_what_is_there_is_cut_if_asked_for(self, potsdam, tmp_path):
        potsdam_files(potsdam, "3_10")[0].unlink()
        assert prepare(tmp_path / "out", "--potsdam", potsdam, "--allow-missing")[0] == 0
        left_out = numbers_of("3_10") | numbers_of("7_10")
        assert set(patches(tmp_path / "out")) == set(range(1, 38 * PER_TILE + 1)) - left_out

    def test_of_vaihingen_image_and_label_are_told_apart_by_folder(self, tiles, tmp_path):
        found = {tile.name: tile for tile in find_tiles("vaihingen", tiles / "vaihingen")}
        assert (found["area1"].image, found["area1"].label) == vaihingen_files(tiles / "vaihingen", "area1")
        image, label = vaihingen_files(tiles / "vaihingen", "area2")
        for folder, path in (("x/top", image), ("x/Ground_Truth_COMPLETE", label), ("gts", label)):  # one label twice
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
        area = next(tile for tile in find_tiles("vaihingen", tmp_path) if tile.name == "area2")
        assert (area.image, area.label) == (tmp_path / "x" / "top" / image.name, tmp_path / "gts" / label.name)

    def test_one_name_with_two_contents_is_told(self, potsdam, tmp_path):
        write_raster(potsdam / "other" / "top_potsdam_2_10_RGB.tif", np.zeros((120, 120, 3), dtype=np.uint8))
        refused(tmp_path / "out", "--potsdam", potsdam, telling="top_potsdam_2_10_RGB.tif: differs from ")

    @pytest.mark.parametrize("mistake", SPOILT)
    def test_a_file_that_is_no_tile_is_told(self, potsdam, tmp_path, mistake):
        which, spoil, telling = SPOILT[mistake]
        spoil(potsdam_files(potsdam, "5_11")[which])
        refused(tmp_path / "out", "--potsdam", potsdam, telling=telling)

    def test_potsdam_has_tiles_of_one_size(self, potsdam, tmp_path):
        for path in potsdam_files(potsdam, "3_11"):
            write_raster(path, np.zeros((90, 120, 3), dtype=np.uint8))
        refused(tmp_path / "out", "--potsdam", potsdam, telling="3_11_RGB.tif: is 120x90, other tiles are 120x120")

    def test_a_patch_larger_than_a_tile_is_told(self, tiles, tmp_path):
        refused(tmp_path, "--potsdam", tiles / "potsdam", patch=121, telling="is 120x120, smaller than a patch")
        refused(tmp_path, "--vaihingen", tiles / "vaihingen", patch=110, telling="choose --patch 100 or less")

    def test_patches_too_many_to_number_are_told(self, tiles, tmp_path):
        refused(tmp_path, "--potsdam", tiles / "potsdam", patch=7, telling="numbers 1 to 12312, but only those up to 9999")

    def test_arguments_that_mean_nothing_are_told(self, tiles, tmp_path):
        refused(tmp_path, telling="nothing to cut; give --potsdam FOLDER, --vaihingen FOLDER or both")
        refused(tmp_path, "--potsdam", tiles / "absent", telling="absent: folder not found; expected the official tiles")
        refused(tmp_path, "--potsdam", tiles / "vaihingen", telling="contains no tiles of Potsdam")
        refused(tmp_path, "--potsdam", tiles / "potsdam", "--skip-tile", "7_20", telling="there is no tile '7_20'")
        assert not list(tmp_path.iterdir())

    def test_a_place_that_cannot_be_written_to_is_told(self, tiles, tmp_path):
        (tmp_path / "out").write_text("a file")
        refused(tmp_path / "out", "--potsdam", tiles / "potsdam", telling="out: cannot be written to")

    def test_rasterio_missing_is_told_with_what_installs_it(self, tiles, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "rasterio", None)
        refused(
            tmp_path,
            "--potsdam",
            tiles / "potsdam",
            telling="rasterio is missing, which is needed to read the tiles; pip install",
        )


@pytest.mark.slow
@pytest.mark.parametrize("strips", ["tiled", "rows", "one strip"])
def test_two_tiles_at_a_time_need_less_than_a_gibibyte(tmp_path, strips):
    layout = {
        "tiled": {"tiled": True},
        "rows": {"compress": "lzw"},
        "one strip": {"compress": "lzw", "blockysize": 6000},
    }[strips]
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": 6000, "width": 6000, "count": 3, "dtype": "uint8", **layout}
    ids = np.kron(rng.integers(0, 6, (100, 100), dtype=np.uint8), np.ones((60, 60), dtype=np.uint8))
    for name in ("2_10", "2_11"):
        files = potsdam_files(tmp_path / "potsdam", name)
        image = np.kron(rng.integers(0, 256, (600, 600, 3), dtype=np.uint8), np.ones((10, 10, 1), dtype=np.uint8))
        for path, pixels in zip(files, (image, COLOURS[ids]), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(path, "w", **profile) as raster:
                raster.write(np.moveaxis(pixels, -1, 0))
    line = [sys.executable, "-m", "contseg", "prepare", "isprs", "--allow-missing", "--workers", "2"]
    places = ["--potsdam", str(tmp_path / "potsdam"), "--out", str(tmp_path / "out")]
    # a process of its own in between: the peak of a child counts what its parent held when it was started
    watch = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
    watch += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    watched = [sys.executable, "-c", watch, *line, *places]
    kibibytes = int(subprocess.run(watched, check=True, capture_output=True, text=True).stdout)
    assert len(patches(tmp_path / "out")) == 200
    assert np.array_equal(patch(tmp_path / "out", "annotations", 2), ids[:600, 600:1200])
    assert kibibytes < 2**20

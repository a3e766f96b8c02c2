"""`check_dataset` finds all that is wrong with files, goes on after each, and counts what it can read."""

import numpy as np
import pytest
from PIL import Image

from contseg.data.check import check_dataset
from contseg.data.coco_json import CocoJSON
from contseg.data.folder import Folder
from contseg.data.isprs import ISPRS
from contseg.data.presence import build_presence
from tests.trees.coco_json import coco_json
from tests.trees.isprs import isprs


def told(problems):
    return [(problem.subset, problem.sample, problem.text) for problem in problems]


def spoil(root):
    """Break six files of a folder of eight samples, each in its own way."""
    (root / "images" / "000.png").write_text("hello")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "images" / "001.png")
    (root / "images" / "001.png").write_bytes((root / "images" / "001.png").read_bytes()[:2000])
    (root / "masks" / "002.png").unlink()
    Image.fromarray(np.full((16, 20), 9, dtype=np.uint8)).save(root / "masks" / "003.png")
    Image.new("RGB", (32, 32), "red").save(root / "masks" / "006.png")
    (root / "images" / "007.png").unlink()
    (root / "masks" / "007.png").unlink()


class TestProblems:
    def test_a_sound_dataset_has_none(self, dataset):
        problems, statistics = check_dataset(dataset)
        assert problems == []
        for one in statistics:
            presence = build_presence(dataset, one.subset)
            assert np.array_equal(one.pixels, presence.pixels.sum(axis=0))
            assert np.array_equal(one.images, (presence.pixels > 0).sum(axis=0))
            assert one.samples == len(dataset.names(one.subset))

    @pytest.mark.parametrize("workers", [1, 4])
    def test_each_bad_file_is_told_in_list_order_and_the_rest_is_read(self, folder, workers):
        dataset = Folder(folder)
        spoil(folder)
        problems, statistics = check_dataset(dataset, workers=workers)
        subsets_and_names = [(problem.subset, problem.sample) for problem in problems]
        assert subsets_and_names == [
            ("train", "000"),
            ("train", "001"),
            ("train", "002"),
            ("train", "003"),
            ("train", "003"),
            ("test", "006"),
            ("test", "007"),
            ("test", "007"),
        ]
        texts = [problem.text for problem in problems]
        assert texts[0].startswith("cannot be read as an image")
        assert texts[1].startswith("cannot be read as an image")
        assert texts[2].startswith("mask not found")
        assert texts[3] == "mask is 20x16 but its image is 32x32; they must be equal"
        assert texts[4] == "ids outside the class table: 9 (320 pixels)"
        assert texts[5].startswith("mask has mode RGB")
        assert texts[6].startswith("image not found")
        assert texts[7].startswith("mask not found")
        files = [problem.file for problem in problems]
        assert files[:3] == [str(folder / part) for part in ("images/000.png", "images/001.png", "masks/002.png")]
        train, test = statistics
        assert (train.samples, test.samples) == (6, 2)
        # masks of broken images still count; all of 003 is strange
        assert train.pixels.sum() + train.ignored == 4 * 32 * 32
        assert test.pixels.sum() == 0

    def test_a_missing_list_is_a_problem_of_its_subset_alone(self, folder):
        dataset = Folder(folder)
        (folder / "test.txt").unlink()
        problems, (train, test) = check_dataset(dataset)
        ((subset, sample, text),) = told(problems)
        assert (subset, sample) == ("test", "")
        assert "test.txt: list not found" in text
        assert (train.samples, test.samples) == (6, 0)

    def test_masks_that_are_no_files_are_told_once(self, tmp_path):
        dataset = coco_json(tmp_path / "data")
        name = dataset.names("train")[1]
        dataset.image_path(name).unlink()
        path = tmp_path / "data" / "annotations" / "instances_train.json"
        path.write_text(path.read_text().replace("[600, 40, 80]", "[600, 40, 81]"))
        problems, _ = check_dataset(CocoJSON(tmp_path / "data"))
        by_name = {problem.sample: (problem.file, problem.text) for problem in problems}
        assert len(problems) == len(by_name) == 2
        assert by_name[name] == (str(dataset.image_path(name)), "image not found; check the list that names it")
        assert by_name["train/street/003"][0] == str(path)
        assert "of 003.jpg: broken run lengths" in by_name["train/street/003"][1]

    def test_an_image_of_too_many_pixels_is_told(self, folder, monkeypatch):
        monkeypatch.setenv("CONTSEG_MAX_PIXELS", "100")
        problems, _ = check_dataset(Folder(folder))
        assert len(problems) == 16
        assert problems[0].text.startswith("32x32 is more than 100 pixels; ")


class TestStatistics:
    def test_void_and_ignored_pixels_are_counted_apart(self, tmp_path):
        isprs(tmp_path)
        scored, _ = check_dataset(ISPRS(tmp_path))[1]
        void, _ = check_dataset(ISPRS(tmp_path, background=False))[1]
        assert scored.ignored == 0
        assert void.ignored == scored.pixels[0] > 0
        assert np.array_equal(void.pixels, scored.pixels[1:])

    def test_a_class_of_a_high_id_that_no_mask_reaches_has_no_pixels(self, folder):
        (folder / "classes.yaml").write_text("{0: background, 1: red, 2: green, 3: blue, 300: gold}")
        problems, (train, _) = check_dataset(Folder(folder))
        assert problems == []
        assert (train.images[-1], train.pixels[-1]) == (0, 0)
        assert train.images[0] == 6

    def test_progress_ends_at_the_number_of_samples(self, folder):
        seen = []
        check_dataset(Folder(folder), progress=lambda done, total: seen.append((done, total)))
        assert seen == [(done, 8) for done in range(1, 9)]

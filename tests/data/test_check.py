"""`check_dataset` finds all that is wrong with files, goes on after each, and counts what it can read."""

import numpy as np
import pytest
from PIL import Image

from contseg.data.check import check_dataset, remarks
from contseg.data.datasets.coco_json import CocoJSON
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.isprs import ISPRS
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


class TestRemarks:
    """What no file is broken by, and a user should know."""

    def of(self, root, **options):
        dataset = Folder(root, **options)
        problems, statistics = check_dataset(dataset)
        return told(problems), remarks(dataset, statistics)

    @pytest.fixture
    def sound(self, make_folder):
        return make_folder(12)

    def masks(self, root, change):
        for path in (root / "masks").iterdir():
            Image.fromarray(change(np.asarray(Image.open(path)))).save(path)

    def test_a_sound_folder_has_none(self, sound):
        assert self.of(sound) == ([], [])

    def test_a_class_without_a_pixel_is_told(self, sound):
        (sound / "classes.txt").write_text("background\nred\ngreen\nblue\ngold\n")
        assert self.of(sound) == ([], ["no mask contains gold: cannot be learned from these masks"])

    @pytest.mark.parametrize(
        ("rows", "text"),
        [
            (range(9), "no training mask contains blue: cannot be learned from these masks"),
            (range(9, 12), "no test mask contains blue: left out of every mean"),
        ],
    )
    def test_a_class_that_one_subset_lacks_is_told(self, sound, rows, text):
        for number in rows:
            path = sound / "masks" / f"{number:03d}.png"
            mask = np.asarray(Image.open(path)).copy()
            mask[mask == 3] = 0
            Image.fromarray(mask).save(path)
        assert self.of(sound) == ([], [text])

    def test_255_that_stands_for_a_class_is_told(self, sound):
        (sound / "classes.txt").write_text("background\ncell\n")
        self.masks(sound, lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))
        problems, notes = self.of(sound)
        assert problems == []
        assert notes[0] == "no mask contains cell: cannot be learned from these masks"
        assert notes[1].startswith("255 is in 12 of 12 masks and always means 'ignore': if it marks cell, write")

    def test_255_beside_classes_that_are_there_is_a_border(self, sound):
        self.masks(sound, lambda mask: np.where(np.arange(32) == 9, 255, mask).astype(np.uint8))
        assert self.of(sound) == ([], [])

    def test_an_id_that_8_bits_cannot_hold_is_told(self, sound):
        (sound / "classes.yaml").write_text("{0: background, 1: red, 2: green, 3: blue, 300: gold}")
        _, notes = self.of(sound)
        assert notes[1] == "the masks have 8 bits, so ids end at 255, below that of gold: write 16-bit PNGs"

    def test_more_classes_than_outputs_are_told(self, sound):
        (sound / "classes.txt").write_text("background\n" + "\n".join(f"class {number}" for number in range(300)))
        assert "301 classes: training is limited to 255 outputs" in self.of(sound)[1]

    def test_an_image_in_both_lists_is_wrong(self, sound):
        (sound / "test.txt").write_text("009\n010\n011\n000\n")
        problems, _ = self.of(sound)
        ((subset, sample, text),) = problems
        assert (subset, sample) == ("test", "000")
        assert text.startswith("is in the training and in the test list")

    def test_a_copy_of_a_training_image_among_the_test_images_is_told(self, sound):
        (sound / "images" / "011.png").write_bytes((sound / "images" / "002.png").read_bytes())
        problems, notes = self.of(sound)
        assert problems == []
        assert notes == [
            "1 test images equal a training image pixel by pixel, such as '011' and '002': test metrics are too high"
        ]

    def test_a_name_that_a_list_repeats_is_told_and_counted_once(self, sound):
        (sound / "test.txt").write_text("009\n010\n011\n009\n009\n")
        dataset = Folder(sound)
        problems, statistics = check_dataset(dataset)
        assert (problems, statistics[1].samples) == ([], 3)
        assert remarks(dataset, statistics) == [
            "the test list names 1 image more than once, such as '009': each counts once"
        ]

    def test_linked_folders_are_told_with_their_images(self, sound, tmp_path):
        for part in ("images", "masks"):
            (sound / part).rename(tmp_path / part)
            (sound / part).mkdir()
            (sound / part / "site").symlink_to(tmp_path / part)
        for subset in ("train", "test"):
            listed = (sound / f"{subset}.txt").read_text().split()
            (sound / f"{subset}.txt").write_text("\n".join(f"site/{name}" for name in listed))
        assert self.of(sound) == ([], [f"images/site is a link to {tmp_path / 'images'}: 12 images below it are used"])

    def test_an_unscored_background_need_not_be_anywhere(self, sound):
        self.masks(sound, lambda mask: np.maximum(mask, 1))
        assert self.of(sound, background="unlabelled") == ([], [])
        assert self.of(sound, background="annotated")[1] == [
            "no mask contains background: cannot be learned from these masks"
        ]

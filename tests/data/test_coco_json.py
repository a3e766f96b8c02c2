"""Objects in COCO's JSON become masks, and every mistake in it is told with its annotation."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as tools

from contseg.data.datasets.coco_json import CocoJSON
from contseg.data.datasets.coco_segments import segment
from contseg.data.open import open_dataset
from contseg.data.presence import build_presence
from contseg.errors import ContsegError
from tests.trees.coco_json import CATEGORIES, HEIGHT, WIDTH, content, rectangle, write_coco


@pytest.fixture
def root(tmp_path) -> Path:
    write_coco(tmp_path / "data")
    return tmp_path / "data"


def json_of(root: Path, subset: str = "train") -> Path:
    return root / "annotations" / f"instances_{subset}.json"


def change_json(root: Path, change, subset: str = "train") -> None:
    """Write a JSON file again after a change of its content."""
    written = json.loads(json_of(root, subset).read_text())
    change(written)
    json_of(root, subset).write_text(json.dumps(written))


def rewrite(root: Path, change, subset: str = "train") -> CocoJSON:
    """The dataset after a change of a JSON file's content."""
    change_json(root, change, subset)
    return CocoJSON(root)


def decoded(segmentation: Any) -> np.ndarray:
    """Pixels of an object by pycocotools alone."""
    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        return tools.decode(segmentation).astype(bool)
    runs = tools.frPyObjects(segmentation, HEIGHT, WIDTH)
    return tools.decode(tools.merge(runs) if isinstance(runs, list) else runs).astype(bool)


def with_objects(root: Path, *objects: dict[str, Any]) -> np.ndarray:
    """The mask of the first image if these are all its objects."""

    def change(written):
        others = [row for row in written["annotations"] if row["image_id"] != 100]
        written["annotations"] = [{"id": 50 + n, "image_id": 100, **one} for n, one in enumerate(objects)] + others

    return rewrite(root, change).read_mask("train/street/000")


class TestMasks:
    def test_masks_are_what_pycocotools_decodes(self, root):
        dataset = open_dataset("coco-json", root)
        cat, car, dogs = (row["segmentation"] for row in content(0, 2)["annotations"][-3:])
        expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        expected[decoded(car)] = 3
        expected[decoded(cat)] = 17
        assert np.array_equal(dataset.read_mask("train/street/000"), expected)
        expected[decoded(dogs)] = 18
        assert np.array_equal(dataset.read_mask("train/street/001"), expected)
        assert set(np.unique(expected)) == {0, 3, 17, 18}

    @pytest.mark.parametrize("order", [1, -1])
    def test_where_objects_overlap_the_smaller_wins_whatever_their_order(self, root, order):
        large = {"category_id": 3, "segmentation": [rectangle(0, 0, 20, 20)], "area": 1}  # what it says is not asked
        small = {"category_id": 17, "segmentation": [rectangle(10, 10, 25, 24)], "area": 999}
        mask = with_objects(root, *[large, small][::order])
        assert mask[15, 15] == 17
        assert mask[5, 5] == 3

    def test_a_crowd_in_front_of_a_larger_object_wins(self, root):
        crowd = {"category_id": 18, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 24, 696]}, "iscrowd": 1}
        mask = with_objects(root, crowd, {"category_id": 3, "segmentation": [rectangle(0, 0, 20, 20)]})
        assert set(mask[:, 0]) == {18}
        assert mask[5, 5] == 3

    def test_of_equal_objects_the_later_wins(self, root):
        mask = with_objects(root, *({"category_id": n, "segmentation": [rectangle(1, 1, 9, 9)]} for n in (18, 17)))
        assert set(np.unique(mask)) == {0, 17}

    def test_compressed_run_lengths_are_read(self, root):
        pixels = np.asfortranarray(np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4)
        runs = tools.encode(pixels.astype(np.uint8))
        text = {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}
        assert np.array_equal(with_objects(root, {"category_id": 3, "segmentation": text}) == 3, pixels)

    def test_an_image_without_objects_is_all_background(self, root):
        assert not with_objects(root).any()

    def test_polygons_are_cut_at_the_border_of_the_image(self, root):
        mask = with_objects(root, {"category_id": 3, "segmentation": [rectangle(-5, -5, 10, 10.5)]})
        assert np.array_equal(mask == 3, decoded([rectangle(-5, -5, 10, 10.5)]))

    def test_reading_leaves_one_annotation_untouched_by_the_other_images(self, root):
        dataset = rewrite(root, lambda written: written["annotations"][0].update(segmentation=[[1, 2, 3]]))
        with pytest.raises(ContsegError):
            dataset.read_mask("train/street/000")
        assert dataset.read_mask("train/street/001").any()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_compressed_text_means_what_pycocotools_says(data):
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = np.asfortranarray(rng.random((height, width)) < data.draw(st.sampled_from([0, 0.02, 0.5, 1])), dtype=np.uint8)
    counts = tools.encode(pixels)["counts"].decode()
    assert np.array_equal(segment({"size": [height, width], "counts": counts}, height, width), pixels)


def test_long_runs_of_a_large_image_are_read():
    pixels = np.zeros((3000, 4000), dtype=np.uint8, order="F")
    pixels[100:2900, 50:3900] = 1
    pixels[5, 7] = 1
    counts = tools.encode(pixels)["counts"].decode()
    assert np.array_equal(segment({"size": [3000, 4000], "counts": counts}, 3000, 4000), pixels)


@given(st.text(alphabet=[chr(code) for code in range(40, 120)], min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_or_refused(text):
    try:
        pixels = segment({"size": [9, 7], "counts": text}, 9, 7)
    except ValueError:
        return
    assert pixels.shape == (9, 7)


class TestClasses:
    def test_category_ids_are_kept_in_their_order(self, root):
        classes = CocoJSON(root).classes
        assert classes.names == ("background", "car", "cat", "dog")
        assert classes.ids == (0, 3, 17, 18)
        assert classes.background == "unlabelled"

    @pytest.mark.parametrize("number", [0, 255, 300])
    def test_categories_that_a_mask_cannot_hold_are_counted_from_one(self, root, number):
        def change(written):
            written["categories"][0]["id"] = number  # the dog
            for row in written["annotations"]:
                row["category_id"] = number if row["category_id"] == 18 else row["category_id"]

        test = CocoJSON(root).read_mask("val/street/005")
        dataset = rewrite(root, change)  # the test file keeps its own ids
        names = dict(zip(dataset.classes.ids, dataset.classes.names, strict=True))
        old = {0: "background", 3: "car", 17: "cat", 18: "dog"}
        assert np.vectorize(names.get)(dataset.read_mask("val/street/005")).tolist() == np.vectorize(old.get)(test).tolist()
        assert dataset.classes.names[1:] == (("car", "cat", "dog") if number else ("dog", "car", "cat"))
        assert dataset.classes.ids == (0, 1, 2, 3)
        assert dataset.read_mask("train/street/001")[10, 26] == (3 if number else 1)

    def test_more_than_254_categories_step_over_the_ignore_value(self, root):
        def change(written):
            written["categories"] = [{"id": number, "name": f"class {number}"} for number in range(1, 301)]

        change_json(root, change)
        dataset = rewrite(root, change, "val")
        assert 255 not in dataset.classes.ids
        assert dataset.classes.ids[-1] == 301
        assert dataset.read_mask("train/street/000").dtype == np.uint16
        assert build_presence(dataset, "train").pixels.sum() == 4 * HEIGHT * WIDTH


class TestPlaces:
    def test_names_are_paths_in_the_order_of_the_json(self, root):
        dataset = rewrite(root, lambda written: written["images"].reverse())
        assert dataset.names("train") == [f"train/street/{number:03d}" for number in (3, 2, 1, 0)]
        assert dataset.names("test") == [f"val/street/{number:03d}" for number in (4, 5, 6)]

    def test_the_names_of_2017_are_found(self, tmp_path):
        write_coco(tmp_path, ("train2017", "val2017"))
        assert CocoJSON(tmp_path).names("test")[0] == "val2017/street/004"

    def test_places_can_be_given(self, root):
        (root / "train").rename(root / "pictures")
        json_of(root, "val").rename(root / "later.json")
        dataset = CocoJSON(root, train_images="pictures", test_json="later.json")
        assert dataset.read("pictures/street/000")[0].shape == (HEIGHT, WIDTH, 3)
        assert dataset.read(dataset.names("test")[0])[1].any()


OPENING = {
    "not JSON": (lambda root: json_of(root).write_text("{'images': []}"), r"not JSON \(Expecting property name"),
    "a list": (lambda root: json_of(root).write_text("[]"), "'images' is missing or no list of objects"),
    "no categories": (lambda root: change_json(root, lambda w: w.pop("categories")), "'categories' is missing"),
    "categories empty": (lambda root: change_json(root, lambda w: w.update(categories=[])), "'categories' is empty"),
    "annotations numbers": (
        lambda root: change_json(root, lambda w: w.update(annotations=[1])),
        "'annotations' is missing or no",
    ),
    "no file name": (
        lambda root: change_json(root, lambda w: w["images"][1].pop("file_name")),
        "image 101: 'file_name' is miss",
    ),
    "no image id": (
        lambda root: change_json(root, lambda w: w["images"][1].pop("id")),
        "image number 2 of the list: 'id' is",
    ),
    "image id twice": (
        lambda root: change_json(root, lambda w: w["images"][1].update(id=100)),
        "image 100: this id occurs twice",
    ),
    "height a text": (
        lambda root: change_json(root, lambda w: w["images"][1].update(height="24")),
        "image 101: 'height' is '24', expected int",
    ),
    "no pixels": (lambda root: change_json(root, lambda w: w["images"][1].update(height=0)), "image 101: is 30x0 pixels"),
    "category id twice": (
        lambda root: change_json(root, lambda w: w["categories"].append(CATEGORIES[0])),
        "category 18: this id occurs twice",
    ),
    "two images of a name": (
        lambda root: change_json(root, lambda w: w["images"][1].update(file_name="street/000.png")),
        r"lists train/street/000\.png, and instances_train\.json lists 000\.jpg, which has the same name",
    ),
    "file missing": (lambda root: json_of(root).unlink(), "not found; options train_json and test_json"),
}


@pytest.mark.parametrize("mistake", OPENING)
def test_a_wrong_file_is_told_when_opened(root, mistake):
    spoil, message = OPENING[mistake]
    spoil(root)
    with pytest.raises(ContsegError, match=message) as caught:
        CocoJSON(root)
    assert str(caught.value).startswith(f"{json_of(root)}: ")
    assert "\n" not in str(caught.value)


SEGMENTATIONS = {
    "odd polygon": ([[1, 1, 5, 1, 5, 5, 2]], "a polygon of 7 numbers; it needs an even count of at least 6"),
    "flat list": ([1, 1, 5, 1, 5, 5], "a polygon must be a list of numbers"),
    "text in a polygon": ([[1, 1, 5, 1, 5, "x"]], "a polygon contains a value that is not a number"),
    "nested polygon": ([[[1, 1], [5, 1], [5, 5], [1, 1], [5, 1], [5, 5]]], "a polygon reaches far out|no number"),
    "endless polygon": ([[1, 1, 5, 1, 1e12, 5]], "a polygon reaches far out of its image of 30x24"),
    "no number at all": ([[1, 1, 5, 1, float("nan"), 5]], "a polygon reaches far out of its image"),
    "a text": ("1 2 3", "its segmentation is neither polygons nor run lengths"),
    "runs of another size": (
        {"size": [30, 24], "counts": [720]},
        r"run lengths of size \[30, 24\] for an image of \[24, 30\]",
    ),
    "runs too short": ({"size": [24, 30], "counts": [100, 5]}, "0 or more and add up to 720, not 105"),
    "runs too long": ({"size": [24, 30], "counts": [100, 5000]}, "0 or more and add up to 720, not 5100"),
    "negative run": ({"size": [24, 30], "counts": [730, -10]}, "broken run lengths: they must be 0 or more"),
    "runs of text": ({"size": [24, 30], "counts": ["a"]}, "counts must be whole numbers or compressed text"),
    "ragged runs": ({"size": [24, 30], "counts": [[1], [2, 3]]}, "counts must be whole numbers or compressed text"),
    "no counts": ({"size": [24, 30]}, "counts must be whole numbers or compressed text"),
    "empty text": ({"size": [24, 30], "counts": ""}, "the compressed text is truncated or contains other characters"),
    "text cut off": ({"size": [24, 30], "counts": "`"}, "the compressed text is truncated or contains other characters"),
    "text of other characters": ({"size": [24, 30], "counts": "0 1"}, "is truncated or contains other characters"),
    "text not ASCII": ({"size": [24, 30], "counts": "é"}, "is truncated or contains other characters"),
    "endless number": ({"size": [24, 30], "counts": "o" * 20 + "0"}, "a number in the compressed text is too long"),
}


@pytest.mark.parametrize("mistake", SEGMENTATIONS)
def test_a_broken_object_is_told_with_its_annotation(root, mistake):
    segmentation, message = SEGMENTATIONS[mistake]
    dataset = rewrite(root, lambda written: written["annotations"][1].update(segmentation=segmentation))
    with pytest.raises(ContsegError, match=message) as caught:
        dataset.read_mask("train/street/000")
    assert str(caught.value).startswith(f"{json_of(root)}: annotation 1001 of 000.jpg: ")
    assert "\n" not in str(caught.value)


def test_an_image_that_is_absent_or_of_another_size_is_told(root):
    dataset = CocoJSON(root)
    Image.new("RGB", (10, 12)).save(dataset.image_path("train/street/001"))
    with pytest.raises(ContsegError, match=r"instances_train\.json: records 001\.jpg as 30x24, but the image is 10x12"):
        dataset.read_mask("train/street/001")
    dataset.image_path("train/street/000").unlink()
    with pytest.raises(ContsegError, match=r"train/street/000\.jpg: image not found"):
        dataset.read("train/street/000")


def test_missing_folders_and_empty_lists_are_told(root):
    with pytest.raises(
        ContsegError, match=r"absent: folder not found; expected the test images; data\.options\.test_images"
    ):
        CocoJSON(root, test_images="absent")
    with pytest.raises(ContsegError, match="nowhere: folder not found; expected a dataset folder"):
        CocoJSON(root / "nowhere")
    dataset = rewrite(root, lambda written: written.update(images=[], annotations=[]))
    with pytest.raises(ContsegError, match="the JSON file of the train subset lists no images"):
        dataset.names("train")


def test_pycocotools_missing_is_told_with_what_installs_it(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ContsegError, match=r"pycocotools is missing; pip install contseg\[coco\]"):
        CocoJSON(root)

"""COCO JSON as annotation tools write it: odd rows are left out and listed, and the layouts of the tools are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contseg.data.datasets.coco_json import CocoJSON
from contseg.data.open import open_dataset
from contseg.data.presence import build_presence
from contseg.errors import ContsegError
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.plan import make_plan
from contseg.scenarios.scenario import Scenario
from tests.trees.coco_json import content, rectangle, write_coco

FIRST = "train/street/000"


@pytest.fixture
def root(tmp_path) -> Path:
    write_coco(tmp_path / "data")
    return tmp_path / "data"


def change(root: Path, edit, *subsets: str) -> CocoJSON:
    """The dataset after an edit of the content of its files; of the training file where none is named."""
    for subset in subsets or ("train",):
        path = root / "annotations" / f"instances_{subset}.json"
        written = json.loads(path.read_text())
        edit(written)
        path.write_text(json.dumps(written))
    return CocoJSON(root)


def told(dataset: CocoJSON) -> list[str]:
    return [text for _, text in dataset.left_out]


def first(written: dict[str, Any]) -> dict[str, Any]:
    return written["annotations"][0]  # a cat of image 100, before a car


ODD_ROWS = {
    "empty segmentation": (lambda w: first(w).update(segmentation=[]), "annotation 1000: its segmentation is empty"),
    "no segmentation": (lambda w: first(w).update(segmentation=None), "annotation 1000: has no segmentation"),
    "a box": (lambda w: first(w).pop("segmentation"), "annotation 1000: has no segmentation (a box is not a mask)"),
    "a line": (
        lambda w: first(w).update(segmentation=[[3, 3, 5, 5]]),
        "annotation 1000: 1 of its 1 polygons have fewer than three points",
    ),
    "unknown image": (
        lambda w: first(w).update(image_id=555),
        "annotation 1000: belongs to image 555, which 'images' does not",
    ),
    "an image of lists": (lambda w: first(w).update(image_id=[]), "annotation 1000: belongs to image []"),
    "unknown category": (lambda w: first(w).update(category_id=7), "annotation 1000: has category 7, which 'categories'"),
}


NAMES_OF_TOOLS = [
    "street\\{}.jpg",
    "images/street/{}.jpg",
    "C:\\export\\{}.jpg",
    "/data/upload/{}.jpg",
    "/data/upload/7/3b9f2c1a-{}.jpg",
    "http://localhost:8080/data/upload/%7B/{}.jpg",
    "/data/local-files/?d=street%2F{}.jpg",
]


class TestOddRows:
    @pytest.mark.parametrize("kind", ODD_ROWS)
    def test_a_row_without_a_mask_is_left_out_and_listed(self, root, kind):
        edit, text = ODD_ROWS[kind]
        healthy = CocoJSON(root).read_mask(FIRST)
        dataset = change(root, edit)
        (row,) = told(dataset)
        assert row.startswith(text)
        (note,) = dataset.notes
        assert f"1 annotation of {len(content(0, 4)['annotations'])} annotations left out" in note
        assert row in note
        mask = dataset.read_mask(FIRST)
        assert set(np.unique(mask)) == {0, 3}
        assert np.array_equal(mask[(healthy != 17)], healthy[healthy != 17])

    def test_a_healthy_export_has_no_notes(self, root):
        assert (CocoJSON(root).notes, CocoJSON(root).left_out) == ((), ())

    def test_a_line_beside_a_polygon_costs_the_polygon_nothing(self, root):
        healthy = CocoJSON(root).read_mask(FIRST)
        dataset = change(root, lambda w: first(w)["segmentation"].append([3, 3, 5, 5]))
        assert np.array_equal(dataset.read_mask(FIRST), healthy)
        assert told(dataset) == ["annotation 1000: 1 of its 2 polygons have fewer than three points"]

    def test_annotations_need_no_id_and_sizes_may_be_floats_or_absent(self, root):
        healthy = CocoJSON(root).read_mask(FIRST)

        def edit(written):
            for row in written["annotations"]:
                del row["id"]
            for row in written["images"]:
                row.update(height=float(row["height"]), width=float(row["width"]))
            del written["images"][0]["height"]

        dataset = change(root, edit)
        assert np.array_equal(dataset.read_mask(FIRST), healthy)
        assert dataset.notes == ()

    @pytest.mark.parametrize("name", NAMES_OF_TOOLS)
    def test_paths_of_other_machines_are_found(self, root, name):
        def edit(written):
            for row in written["images"]:
                row["file_name"] = name.format(row["file_name"].removeprefix("street/").removesuffix(".jpg"))

        if "street" not in name:
            for path in (root / "train" / "street").iterdir():
                path.rename(root / "train" / path.name)
        dataset = change(root, edit)
        assert len(dataset.names("train")) == 4
        assert all(dataset.read(one)[1].any() for one in dataset.names("train"))

    def test_boxes_alone_are_no_dataset(self, root):
        with pytest.raises(ContsegError, match=r"instances_train\.json: none of its 10 annotations can be used; .* box"):
            change(root, lambda w: [row.pop("segmentation") for row in w["annotations"]])


class TestCategories:
    def test_a_parent_category_of_roboflow_is_no_class(self, root):
        parent = {"id": 0, "name": "animals", "supercategory": "none"}
        dataset = change(root, lambda w: w["categories"].insert(0, parent), "train", "val")
        assert dataset.classes.names == ("background", "car", "cat", "dog")
        assert dataset.classes.ids == (0, 3, 17, 18)
        assert told(dataset) == ["category 0: 'animals' has no object and only groups other categories"] * 2

    def test_a_supercategory_that_is_listed_and_unused_is_no_class(self, root):
        def edit(written):
            written["categories"] = [{**row, "supercategory": "thing"} for row in written["categories"]]
            written["categories"].append({"id": 90, "name": "thing"})

        assert change(root, edit, "train", "val").classes.names == ("background", "car", "cat", "dog")

    def test_an_unused_class_stays_a_class(self, root):
        dataset = change(root, lambda w: w["categories"].append({"id": 90, "name": "fox"}))
        assert dataset.classes.names[-1] == "fox"

    def test_categories_of_one_name_are_one_class(self, root):
        def edit(written):
            written["categories"].append({"id": 40, "name": "cat"})
            first(written)["category_id"] = 40

        healthy = CocoJSON(root).read_mask(FIRST)
        dataset = change(root, edit)
        assert np.array_equal(dataset.read_mask(FIRST), healthy)
        assert told(dataset) == ["category 40: has the name of category 17, 'cat'; they are one class"]

    def test_a_background_that_is_listed_is_the_background(self, root):
        def edit(written):
            written["categories"].append({"id": 0, "name": "Background"})
            drawn = {"id": 5, "image_id": 100, "category_id": 0, "segmentation": [rectangle(0, 0, 30, 24)]}
            written["annotations"].append(drawn)

        healthy = CocoJSON(root).read_mask(FIRST)
        dataset = change(root, edit, "train", "val")
        assert dataset.classes.names == ("background", "car", "cat", "dog")
        assert np.array_equal(dataset.read_mask(FIRST), healthy)

    def test_the_test_file_may_lack_a_class(self, root):
        def edit(written):
            written["categories"] = [row for row in written["categories"] if row["name"] != "dog"]
            written["annotations"] = [row for row in written["annotations"] if row["category_id"] != 18]

        assert change(root, edit, "val").classes.names == ("background", "car", "cat", "dog")

    def test_the_test_file_has_no_objects_of_a_class_of_its_own(self, root):
        def edit(written):
            written["categories"].append({"id": 40, "name": "fox"})

        assert change(root, edit, "val").classes.names[-1] == "dog"
        with pytest.raises(
            ContsegError, match=r"instances_val\.json: has objects of 'fox', which is not a class of .*drop="
        ):
            change(root, lambda w: first(w).update(category_id=40), "val")
        assert CocoJSON(root, drop=["fox"]).names("test")

    def test_categories_can_be_dropped_and_renamed(self, root):
        dataset = open_dataset("coco-json", root, drop=["car"], rename={"cat": "animal", "dog": "animal"})
        assert dataset.classes.names == ("background", "animal")
        healthy = CocoJSON(root).read_mask("train/street/001")
        assert np.array_equal(dataset.read_mask("train/street/001") > 0, healthy > 3)
        assert "category 3: 'car' is dropped" in told(dataset)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"drop": ["cart"]}, r"data\.options\.drop: no category 'cart'; did you mean 'ca[rt]'"),
            ({"rename": {"carr": "x"}}, r"data\.options\.rename: no category 'carr'; did you mean 'car'"),
            ({"drop": 3}, r"data\.options\.drop: 3 is not a list"),
            ({"rename": "car"}, r"data\.options\.rename: 'car' is not a mapping"),
            ({"drop": ["car", "cat", "dog"]}, "no category left to learn"),
        ],
    )
    def test_options_about_nothing_are_refused(self, root, options, message):
        with pytest.raises(ContsegError, match=message):
            CocoJSON(root, **options)


def as_one_file(root: Path, json_at: str, images_at: str, count: int = 12) -> Path:
    """The images of one file, in the layout of a tool."""
    write_coco(root / "raw")
    written = content(0, count)
    for row in written["images"]:
        row["file_name"] = row["file_name"].removeprefix("street/")
        picture = (root / "raw" / "train" / "street" / "000.jpg").read_bytes()
        (root / "data" / images_at).mkdir(parents=True, exist_ok=True)
        (root / "data" / images_at / row["file_name"]).write_bytes(picture)
    (root / "data" / json_at).parent.mkdir(parents=True, exist_ok=True)
    (root / "data" / json_at).write_text(json.dumps(written))
    return root / "data"


class TestLayouts:
    @pytest.mark.parametrize(
        ("json_at", "images_at"),
        [
            ("annotations/instances_default.json", "images/default"),
            ("annotations/instances_default.json", "images"),
            ("annotations/instances_train.json", "images/train"),
            ("train/_annotations.coco.json", "train"),
            ("result.json", "images"),
            ("export.json", "."),
        ],
    )
    def test_one_file_is_divided_the_same_way_each_time(self, tmp_path, json_at, images_at):
        root = as_one_file(tmp_path, json_at, images_at)
        dataset = CocoJSON(root)
        train, test = dataset.names("train"), dataset.names("test")
        assert not set(train) & set(test)
        assert len(train) + len(test) == 12
        assert 1 <= len(test) <= 5
        assert CocoJSON(root).names("test") == test
        assert not dataset.is_divided
        assert build_presence(dataset, "train").pixels[:, 1:].any()

    @pytest.mark.parametrize("tested", ["valid", "test"])
    def test_roboflow_keeps_files_beside_their_images(self, tmp_path, tested):
        for part, images in (("train", 4), ("valid", 3), ("test", 2)):
            if part in ("train", "valid", tested):
                (tmp_path / part).mkdir()
                as_one_file(tmp_path / "raw" / part, f"{part}/_annotations.coco.json", part, images)
                (tmp_path / "raw" / part / "data" / part).rename(tmp_path / part)
        dataset = CocoJSON(tmp_path)
        assert all(name.startswith(f"{tested}/") for name in dataset.names("test"))
        assert len(dataset.names("test")) == (3 if tested == "valid" else 2)
        assert bool(dataset.notes) == (tested == "test")

    def test_what_was_found_is_told(self, tmp_path):
        for name in ("a.json", "b.json"):
            (tmp_path / name).write_text("{}")
        with pytest.raises(ContsegError, match=r"instances_train\.json: not found; .*; found a\.json, b\.json"):
            CocoJSON(tmp_path)
        for name in ("a.json", "b.json"):
            (tmp_path / name).unlink()
        (tmp_path / "masks").mkdir()
        with pytest.raises(ContsegError, match=r"found no JSON file; a folder of masks is read by data\.dataset=folder"):
            CocoJSON(tmp_path)

    def test_one_file_has_no_folder_of_test_images(self, tmp_path):
        root = as_one_file(tmp_path, "annotations/instances_train.json", "images/train")
        with pytest.raises(ContsegError, match=r"instances_val\.json: not found, though test_images is given"):
            CocoJSON(root, test_images="images/train")


def test_notes_of_opening_stand_in_the_plan(root):
    dataset = change(root, lambda w: first(w).update(segmentation=[]))
    plan = make_plan(Scenario(dataset, ScenarioOptions(split="2-1")))
    assert plan.warnings[: len(dataset.notes)] == dataset.notes

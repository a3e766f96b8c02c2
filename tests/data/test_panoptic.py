"""Panoptic labels: what an id in a PNG means, and how broken files are told."""

import json

import numpy as np
import pytest
from PIL import Image

from contseg.data.check import check_dataset
from contseg.data.classes import ClassTable
from contseg.data.datasets.ade20k import ADE20K
from contseg.data.datasets.panoptic import ADE20KPanoptic, COCOPanoptic
from contseg.data.files import read_segment_ids, write_segment_ids
from contseg.data.open import open_dataset
from contseg.data.panoptic_format import panoptic_categories, panoptic_png, segment_rows
from contseg.data.presence import build_presence
from contseg.data.segments import CROWD, SegmentMap
from contseg.errors import ContsegError
from tests.trees.panoptic import SIZE, STRIPES, ade20k_panoptic, change, coco_panoptic, striped

BOTH = (ade20k_panoptic, coco_panoptic)


def columns(layer: np.ndarray, rows) -> list[int]:
    """The value of each stripe, without annotation first."""
    width = SIZE[1] // (len(rows) + 1)
    assert (layer == layer[0]).all()
    return layer[0, width // 2 :: width][: len(rows) + 1].tolist()


class TestClasses:
    def test_ade20k_has_the_100_things_of_its_instance_benchmark(self):
        table = ADE20KPanoptic.classes
        assert len(table.things) == 100
        assert (table.names, table.ids) == (ADE20K.classes.names, ADE20K.classes.ids)
        assert ADE20K.classes.things == ()
        kind = {name.split(",")[0]: thing for name, thing in zip(table.names, table.is_thing.tolist(), strict=True)}
        assert [kind[name] for name in ("person", "bed", "flag", "screen", "traffic light")] == [True] * 5
        assert [kind[name] for name in ("background", "wall", "sky", "crt screen", "poster", "stairway")] == [False] * 6

    def test_coco_has_80_things_and_53_kinds_of_stuff_with_their_category_ids(self):
        table = COCOPanoptic.classes
        assert (len(table.things), len(table.foreground)) == (80, 133)
        names = dict(zip(table.ids, table.names, strict=True))
        assert {number: names[number] for number in (1, 13, 90, 92, 200)} == {
            1: "person", 13: "stop sign", 90: "toothbrush", 92: "banner", 200: "rug-merged"
        }  # fmt: skip
        assert max(table.things) == 90

    def test_things_stay_with_their_classes(self):
        table = ClassTable(("sky", "car", "cat"), (3, 5, 9), ((0, 0, 0),) * 3, "none", things=(5, 9))
        assert table.with_unscored_background().is_thing.tolist() == [False, False, True, True]
        assert table.with_unscored_background().without_background().things == (5, 9)
        assert table.subset([9, 3]).is_thing.tolist() == [True, False]

    def test_a_thing_that_is_no_class_is_refused(self):
        with pytest.raises(ContsegError, match="thing 0 is not the id of a class"):
            ClassTable(("background", "cat"), (0, 1), ((0, 0, 0),) * 2, "annotated", things=(0,))


class TestReading:
    @pytest.mark.parametrize(
        ("make", "classes", "numbers"),
        [
            (ade20k_panoptic, [0, 3, 13, 13, 150], [0, 0, 1, 2, 3]),
            (coco_panoptic, [0, 187, 1, 1, 200, 1], [0, 0, 1, 2, 0, CROWD]),
        ],
    )
    def test_an_id_is_a_class_and_things_are_numbered(self, tmp_path, make, classes, numbers):
        dataset = make(tmp_path)
        rows = STRIPES[type(dataset)]
        image, layers = dataset.read_layers(dataset.names("test")[0])
        assert image.shape == (*SIZE, 3)
        assert columns(layers["mask"], rows) == classes
        assert columns(layers["instances"], rows) == numbers
        assert (dataset.read_mask(dataset.names("test")[0]) == layers["mask"]).all()

    @pytest.mark.parametrize("subsets", [("train",), ("train", "test")])
    def test_categories_of_ade20k_may_begin_with_1_in_each_file(self, tmp_path, subsets):
        dataset = ade20k_panoptic(tmp_path)
        names = [dataset.names(subset)[0] for subset in ("train", "test")]
        before = [dataset.read_labels(name) for name in names]
        for subset in subsets:
            dataset = change(dataset, lambda content: renumber(content, 1), subset)
        for name, labels in zip(names, before, strict=True):
            after = dataset.read_labels(name)
            assert all((after[key] == layer).all() for key, layer in labels.items())

    @pytest.mark.parametrize(
        ("how", "found"),
        [
            (lambda content: content["categories"].pop(0), "has 149 ids, of 1 to 150 1 missing (150);"),
            (lambda content: content["categories"].pop(), "has 149 ids, of 0 to 149 1 missing (149);"),
            (lambda content: renumber(content, 2), "has 150 ids, of 1 to 150 1 missing (1) and 1 unknown (151);"),
            (
                lambda content: content["categories"][1].update(id=150),
                "has 150 ids, of 0 to 149 1 missing (1) and 1 unknown (150);",
            ),
            (lambda content: content["categories"].clear(), "has 0 ids, of 1 to 150 150 missing (1, 2, 3, ...);"),
        ],
    )
    def test_categories_of_ade20k_that_count_otherwise_are_told_with_the_file(self, tmp_path, how, found):
        dataset = ade20k_panoptic(tmp_path)
        with pytest.raises(ContsegError) as caught:
            change(dataset, how)
        path = dataset.root / dataset.files["train"]
        assert str(caught.value) == f"{path}: 'categories' {found} list all 150, as 0 to 149 or as 1 to 150"

    def test_categories_of_coco_have_gaps_and_are_not_counted_through(self, tmp_path):
        dataset = coco_panoptic(tmp_path)
        rows = json.loads((dataset.root / dataset.files["train"]).read_text())["categories"]
        ids = [row["id"] for row in rows]
        assert (len(ids), ids[0], ids[-1]) == (133, 1, 200)
        assert not {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91, 94} & set(ids)
        for first in (0, 1):

            def counted(content, first=first):
                for number, category in enumerate(content["categories"], first):
                    category["id"] = number

            with pytest.raises(ContsegError, match=r"category \d+ \(.*\) is no class of this dataset"):
                change(coco_panoptic(tmp_path), counted)

    def test_samples_are_in_the_order_of_their_names(self, tmp_path):
        dataset = ade20k_panoptic(tmp_path)
        assert dataset.names("train") == ["ADE_train_00000001", "ADE_train_00000002"]

    @pytest.mark.parametrize("make", BOTH)
    def test_without_background_unlabelled_pixels_are_void(self, tmp_path, make):
        dataset = make(tmp_path, background=False)
        assert (dataset.classes.background, dataset.classes.void) == ("none", (0,))
        assert build_presence(dataset, "train", cached=False).pixels.sum() > 0

    def test_images_of_coco_may_be_under_images(self, tmp_path):
        coco_panoptic(tmp_path)
        for folder in COCOPanoptic.folders.values():
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / folder).rename(tmp_path / "images" / folder)
        dataset = COCOPanoptic(tmp_path)
        assert dataset.read(dataset.names("train")[0])[0].shape == (*SIZE, 3)

    def test_ids_have_three_bytes(self, tmp_path):
        ids = np.array([[0, 1, 255, 256, 65535, 65536, 16777215]])
        write_segment_ids(tmp_path / "a.png", ids)
        assert (read_segment_ids(tmp_path / "a.png") == ids).all()
        assert np.asarray(Image.open(tmp_path / "a.png"))[0, 3].tolist() == [0, 1, 0]


class TestBadInput:
    def told(self, dataset) -> str:
        """The problem of the first training sample, which reading and counting tell alike."""
        with pytest.raises(ContsegError) as caught:
            dataset.read(dataset.names("train")[0])
        with pytest.raises(ContsegError) as again:
            build_presence(dataset, "train", cached=False)
        assert str(caught.value) == str(again.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("make", BOTH)
    def test_ids_that_are_not_listed_are_told_with_their_pixels(self, tmp_path, make):
        dataset = make(tmp_path)
        path = dataset.mask_path(dataset.names("train")[0])
        ids = striped(STRIPES[type(dataset)])
        ids[0, :3], ids[1, :2] = 999, 12345
        write_segment_ids(path, ids)
        assert self.told(dataset) == (
            f"{path}: unknown segment ids: 999 (3 pixels), 12345 (2 pixels); list each in 'segments_info', or write 0 for"
            " not annotated"
        )

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
    def test_a_png_that_is_not_rgb_is_told(self, tmp_path, mode):
        dataset = coco_panoptic(tmp_path)
        path = dataset.mask_path(dataset.names("train")[0])
        Image.new(mode, SIZE[::-1]).save(path)
        assert self.told(dataset) == f"{path}: has mode {mode}; a panoptic mask is RGB, with ids R + 256 G + 65536 B"

    def test_a_png_of_another_size_is_told_with_both_sizes(self, tmp_path):
        dataset = coco_panoptic(tmp_path)
        path = dataset.mask_path(dataset.names("train")[0])
        write_segment_ids(path, np.zeros((5, 7), dtype=int))
        assert self.told(dataset) == f"{path}: mask is 7x5 but its image is 30x24; they must be equal"

    def test_a_missing_png_is_told(self, tmp_path):
        dataset = coco_panoptic(tmp_path)
        path = dataset.mask_path(dataset.names("train")[0])
        path.unlink()
        assert self.told(dataset).startswith(f"{path}: mask not found")

    def test_the_check_tells_segments_that_were_drawn_over(self, tmp_path):
        dataset = ade20k_panoptic(tmp_path)
        name = dataset.names("train")[0]
        ids = striped(STRIPES[ADE20KPanoptic])
        ids[ids == 65536] = 256
        ids[0, ids[0] == 7] = 256
        write_segment_ids(dataset.mask_path(name), ids)
        problems, _ = check_dataset(dataset, workers=1)
        assert [(one.sample, one.file) for one in problems] == [(name, str(dataset.mask_path(name)))] * 2
        assert problems[0].text == "segment 7 records 144 pixels and shows 138; segments overlap"
        assert problems[1].text == (
            "segment 65536 is listed but has no pixel; segments overlap, or the PNG is of another image"
        )

    @pytest.mark.parametrize(
        ("how", "problem"),
        [
            (lambda content: content.pop("annotations"), "'annotations' is missing or no list of objects"),
            (lambda content: content["images"][0].pop("id"), "image 1 of the list has no id"),
            (lambda content: content["images"].pop(0), "belongs to image 0, which 'images' does not list"),
            (lambda content: content["annotations"][0].update(file_name="../a.png"), "'../a.png' is not the name"),
            (lambda content: content["images"][0].update(file_name="/etc/passwd"), "is not the name of a file"),
            (lambda content: content["annotations"].append(content["annotations"][0]), "is annotated twice"),
            (
                lambda content: content["annotations"][1].update(image_id=0),
                "image 0 is annotated twice (000000000009.png, 0000",
            ),
            (lambda content: content["images"].append(content["images"][0]), "image 0 is listed twice"),
            (lambda content: segment(content).update(iscrowd="yes"), "iscrowd is 'yes'; set it to 0 or 1"),
            (lambda content: content["annotations"][0].pop("segments_info"), "'segments_info' is missing"),
            (lambda content: segment(content).update(id=0), "segment id 0: ids are 1 to 16777215"),
            (lambda content: segment(content).update(id=1 << 24), "segment id 16777216: ids are 1 to 16777215"),
            (lambda content: segment(content).update(id=True), "segment id True: ids are"),
            (lambda content: segment(content).update(id=300), "lists segment 300 more than once, so that segments overlap"),
            (lambda content: segment(content).update(category_id=12), "category 12 is not in 'categories'"),
            (lambda content: content["categories"][0].update(id=2), "category 2 is listed twice"),
            (lambda content: content["categories"][0].update(id=12), "category 12 (person) is no class of this dataset"),
            (
                lambda content: content["categories"][0].update(isthing=0),
                "category 1 is stuff, but class 1 (person) is a thing",
            ),
            (lambda content: content["categories"][0].update(id="1"), "category 'person' has id 1; ids are numbers"),
        ],
    )
    def test_a_broken_json_file_is_told_in_one_line(self, tmp_path, how, problem):
        dataset = coco_panoptic(tmp_path)
        with pytest.raises(ContsegError) as caught:
            change(dataset, how)
        message = str(caught.value)
        assert problem in message
        assert message.startswith(f"{dataset.root / dataset.files['train']}: ")
        assert "\n" not in message

    def test_a_missing_json_file_is_told(self, tmp_path):
        dataset = coco_panoptic(tmp_path)
        path = dataset.root / dataset.files["test"]
        path.unlink()
        with pytest.raises(ContsegError, match="not found; the segments of panoptic PNGs are listed there"):
            COCOPanoptic(tmp_path)

    def test_an_image_to_train_on_that_is_also_one_to_test_on_is_refused(self, tmp_path):
        dataset = coco_panoptic(tmp_path)
        name = dataset.names("test")[0]

        def also(content):
            content["images"].append({"id": -1, "file_name": f"{name}.jpg"})
            content["annotations"].append({"image_id": -1, "file_name": f"{name}.png", "segments_info": []})

        with pytest.raises(ContsegError, match=f"'{name}' is also in annotations/panoptic_train2017.json"):
            change(dataset, also)

    @pytest.mark.parametrize("make", BOTH)
    def test_another_folder_is_told_with_what_is_there(self, tmp_path, make):
        dataset = make(tmp_path / "right")
        other = next(kind for kind in BOTH if kind is not make)
        other(tmp_path / "wrong")
        with pytest.raises(ContsegError, match=r"folder not found; expected .*, found "):
            open_dataset(dataset.name, tmp_path / "wrong")


def renumber(content, shift: int) -> None:
    """Move all category ids of a file."""
    for category in content["categories"]:
        category["id"] += shift
    for image in content["annotations"]:
        for one in image["segments_info"]:
            one["category_id"] += shift


def segment(content) -> dict:
    """The first segment of the first image of COCO's training file, of sky."""
    return content["annotations"][0]["segments_info"][0]


class TestFormat:
    TABLE = ClassTable(("sky", "car", "cat"), (3, 5, 9), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), "none", things=(5, 9))
    IDS = np.array([[0, 0, 1, 1, -1], [0, 2, 1, 1, 2]])
    CLASSES = (0, 1, 1, 2)

    def test_rows_have_area_and_box_and_leave_empty_segments_out(self):
        rows = segment_rows(self.IDS, self.CLASSES, self.TABLE)
        assert [(row["id"], row["category_id"], row["area"], row["bbox"]) for row in rows] == [
            (1, 3, 3, [0, 0, 2, 2]),
            (2, 5, 4, [2, 0, 2, 2]),
            (3, 5, 2, [1, 1, 4, 1]),
        ]

    def test_nothing_at_all_is_no_row(self):
        assert segment_rows(np.full((2, 2), -1), (), self.TABLE) == []
        assert segment_rows(np.full((2, 2), -1), (1, 1), self.TABLE) == []

    def test_ids_of_the_png_are_those_of_the_rows(self, tmp_path):
        write_segment_ids(tmp_path / "a.png", panoptic_png(self.IDS))
        found = read_segment_ids(tmp_path / "a.png")
        assert {row["id"]: row["area"] for row in segment_rows(self.IDS, self.CLASSES, self.TABLE)} == {
            number: int((found == number).sum()) for number in (1, 2, 3)
        }
        assert (found == 0).sum() == 1

    def test_categories_are_the_classes_without_background(self):
        rows = panoptic_categories(ClassTable.official("ade20k", "unlabelled", things=True))
        assert len(rows) == 150
        assert (rows[12]["id"], rows[12]["isthing"], rows[0]["isthing"]) == (13, 1, 0)
        json.dumps(rows)

    def test_a_segment_map_of_ids_has_their_classes(self):
        found = SegmentMap.of_ids(self.IDS, self.CLASSES)
        assert found.classes.tolist() == [[0, 0, 1, 1, -1], [0, 1, 1, 1, 1]]
        assert found.areas(3) == [(0, 0, 3), (1, 1, 4), (1, 2, 2)]

"""labelme's shapes become masks; what has no area is left out and listed."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.data.datasets.labelled import open_labelled
from contseg.data.datasets.labelme import Labelme
from contseg.data.open import open_dataset
from contseg.errors import ContsegError
from tests.trees.own import SIZE, shape, write_labelme

SQUARE = [(2, 2), (6, 2), (6, 6), (2, 6)]


def mask_of(root: Path, *shapes) -> np.ndarray:
    write_labelme(root / "a.json", list(shapes))
    return Labelme(root).read("a")[1]


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    found = np.zeros(SIZE, dtype=bool)
    found[top:bottom, left:right] = True
    return found


def png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


class TestShapes:
    def test_pixels_belong_to_a_polygon_if_their_centre_is_in_it(self, tmp_path):
        assert np.array_equal(
            mask_of(tmp_path, shape("boat", [(1.6, 2.4), (6.4, 2.4), (6.4, 6), (1.6, 6)])), box(2, 2, 6, 6)
        )

    @pytest.mark.parametrize("corners", [[(2, 2), (6, 6)], [(6, 6), (2, 2)], [(6, 2), (2, 6)]])
    def test_rectangles_have_two_opposite_corners(self, tmp_path, corners):
        assert np.array_equal(mask_of(tmp_path, shape("boat", corners, "rectangle")), box(2, 2, 6, 6))

    def test_circles_have_a_centre_and_a_point_on_them(self, tmp_path):
        mask = mask_of(tmp_path, shape("boat", [(15, 12), (15, 7)], "circle"))
        y, x = np.indices(SIZE) + 0.5
        distance = np.hypot(x - 15, y - 12)
        assert mask[distance < 4.9].all()
        assert not mask[distance > 5].any()

    def test_masks_are_images_at_their_upper_left_corner(self, tmp_path):
        mask = mask_of(tmp_path, shape("boat", [(27, 22), (30, 24)], "mask", mask=png(np.eye(4) * 255)))
        assert np.argwhere(mask).tolist() == [[22, 27], [23, 28]]  # the rest is outside the image

    def test_later_shapes_are_drawn_over_earlier_ones(self, tmp_path):
        mask = mask_of(
            tmp_path, shape("cat", SQUARE), shape("dog", [(4, 2), (8, 2), (8, 6), (4, 6)]), shape("cat", SQUARE[:3])
        )
        assert (mask[5, 2], mask[5, 4], mask[2, 5]) == (1, 2, 1)

    def test_background_and_ignore_are_no_classes(self, tmp_path):
        square = [(x + 10, y) for x, y in SQUARE]
        shapes = [
            shape("boat", SQUARE),
            shape("_background_", [(2, 2), (4, 2), (4, 6), (2, 6)]),
            shape("__ignore__", square),
        ]
        mask = mask_of(tmp_path, *shapes)
        assert Labelme(tmp_path).classes.names == ("background", "boat")
        assert np.array_equal(mask == 1, box(4, 2, 6, 6))
        assert np.array_equal(mask == 255, box(12, 2, 16, 6))

    def test_groups_and_spaces_around_a_label_change_nothing(self, tmp_path):
        mask = mask_of(tmp_path, shape("boat", SQUARE, group_id=3), shape(" boat ", [(x + 10, y) for x, y in SQUARE]))
        assert Labelme(tmp_path).classes.names == ("background", "boat")
        assert np.array_equal(mask == 1, box(2, 2, 6, 6) | box(12, 2, 16, 6))

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (shape("rope", SQUARE, "linestrip"), "'rope' is a linestrip, which has no area"),
            (shape("buoy", SQUARE[:1], "point"), "'buoy' is a point, which has no area"),
            (shape("boat", SQUARE[:2]), "'boat' has fewer than three points"),
            (shape("boat", SQUARE, "circle"), "'boat' is a circle of 4 points instead of 2"),
            (shape("boat", [(1, "x"), (2, 2), (3, 3)]), "'boat' has points that are not pairs of numbers"),
            (shape("boat", [(1, 1e999), (2, 2), (3, 3)]), "'boat' has points that are not finite"),
            (shape("boat", SQUARE[:2], "mask", mask="AAAA"), "'boat' has a mask that is no PNG in base64"),
            ({"points": SQUARE}, "has no label"),
        ],
    )
    def test_a_shape_without_area_is_left_out_and_listed(self, tmp_path, row, reason):
        mask = mask_of(tmp_path, row, shape("cat", SQUARE))
        dataset = Labelme(tmp_path)
        assert dataset.classes.names == ("background", "cat")
        assert np.array_equal(mask == 1, box(2, 2, 6, 6))
        ((path, text),) = dataset.left_out
        assert (path.name, text.startswith(f"shape 1: {reason}")) == ("a.json", True)
        assert reason in dataset.notes[0]


class TestFiles:
    @pytest.mark.parametrize("written", ["../images/a.png", "..\\images\\a.png", "C:\\photos\\a.png", "elsewhere.jpg", ""])
    def test_an_image_is_found_by_its_path_or_its_name(self, tmp_path, written):
        (tmp_path / "images").mkdir()
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / "a.png")
        write_labelme(tmp_path / "labels" / "a.json", [shape("boat", SQUARE)], written)
        dataset = open_labelled(tmp_path)
        assert dataset.names("train") == ["a"]
        assert dataset.image_path("a") == tmp_path / "images" / "a.png"
        assert dataset.read("a")[1].any()

    def test_an_image_that_is_not_there_is_an_error(self, tmp_path):
        write_labelme(tmp_path / "a.json", [], "b.jpg")
        with pytest.raises(ContsegError, match=r"a\.json: its image 'b\.jpg' is not there; copy it next to the file"):
            Labelme(tmp_path)

    def test_two_files_of_one_image_are_an_error(self, tmp_path):
        write_labelme(tmp_path / "a.json", [])
        write_labelme(tmp_path / "b.json", [], "a.png")
        with pytest.raises(ContsegError, match=r"b\.json: labels the image a\.png, and so does .*a\.json; remove one"):
            Labelme(tmp_path)

    def test_an_image_of_another_size_is_an_error(self, tmp_path):
        write_labelme(tmp_path / "a.json", [shape("boat", SQUARE)])
        Image.new("RGB", (9, 8)).save(tmp_path / "a.png")
        with pytest.raises(ContsegError, match=r"a\.json: records a\.png as 30x24, but the image is 9x8"):
            Labelme(tmp_path).read_mask("a")

    def test_a_class_list_orders_the_classes_and_labels_must_be_in_it(self, tmp_path):
        write_labelme(tmp_path / "a.json", [shape("boat", SQUARE), shape("cat", SQUARE)])
        (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\nboat\n")
        assert Labelme(tmp_path).classes.names == ("background", "dog", "cat", "boat")
        (tmp_path / "labels.txt").write_text("dog\ncat\nboad\n")
        with pytest.raises(ContsegError, match=r"a\.json: label 'boat' is not in the class list; .*; did you mean 'boad'\?"):
            Labelme(tmp_path)

    def test_images_without_a_file_and_other_json_are_noted(self, tmp_path):
        write_labelme(tmp_path / "a.json", [shape("boat", SQUARE)])
        Image.new("RGB", (9, 8)).save(tmp_path / "b.png")
        (tmp_path / "settings.json").write_text("{}")
        unused, left = Labelme(tmp_path).notes
        assert unused == "1 image without a JSON file: not used, such as b.png"
        assert left.startswith("1 row left out, such as settings.json: is no file of labelme")

    def test_broken_json_is_an_error(self, tmp_path):
        (tmp_path / "a.json").write_text('{"shapes": [')
        with pytest.raises(ContsegError, match=r"a\.json: not JSON"):
            Labelme(tmp_path)


class TestDetection:
    def test_dataset_folder_reads_every_format(self, tmp_path, make_folder):
        write_labelme(tmp_path / "labelme" / "a.json", [shape("boat", SQUARE)])
        assert open_dataset("folder", tmp_path / "labelme").name == "labelme"
        assert open_dataset("folder", make_folder()).name == "folder"
        coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "boat"}]}
        (tmp_path / "coco" / "images").mkdir(parents=True)
        (tmp_path / "coco" / "result.json").write_text(json.dumps(coco))
        assert open_dataset("folder", tmp_path / "coco").name == "coco-json"

    def test_a_folder_of_none_of_the_formats_is_an_error(self, tmp_path):
        (tmp_path / "settings.json").write_text("{}")
        message = (
            r"images: folder not found; expected images/, masks/ and classes\.txt, .* or JSON files of COCO or labelme;"
        )
        with pytest.raises(ContsegError, match=message + r" found settings\.json"):
            open_labelled(tmp_path)
        with pytest.raises(ContsegError, match="nowhere: folder not found"):
            open_labelled(tmp_path / "nowhere")

    def test_images_without_a_mask_are_left_out_with_a_note(self, make_folder):
        root = make_folder()
        (root / "masks" / "001.png").unlink()
        dataset = open_labelled(root)
        assert "001" not in dataset.names("train")
        assert dataset.notes == ("1 image without a mask: not used, such as '001'",)

    @pytest.mark.parametrize(
        ("unlabelled", "meaning"), [(None, "unlabelled"), ("background", "annotated"), ("unknown", "unscored")]
    )
    def test_the_meaning_of_unlabelled_pixels_can_be_set(self, tmp_path, unlabelled, meaning):
        write_labelme(tmp_path / "a.json", [shape("boat", SQUARE)])
        assert open_labelled(tmp_path, unlabelled=unlabelled).classes.background == meaning
        with pytest.raises(ContsegError, match=r"data\.options\.bandz: .* did you mean 'bands'\?"):
            open_labelled(tmp_path, bandz=[1])
        with pytest.raises(ContsegError, match="unlabelled: 'nothing' is unknown; use 'unknown' or 'background'"):
            open_labelled(tmp_path, unlabelled="nothing")

"""The confusion matrix of a report: its picture, its shares, and the largest confusions."""

import base64
import io

import numpy as np
from PIL import Image

from contseg.report.confusions import MOST, confusion_tables


def table(confusion, names):
    return confusion_tables({"run": {"confusions": [np.array(confusion)], "classes": names}})["run"][0]


def test_the_largest_confusions_are_shares_of_the_pixels_of_a_class():
    found = table([[90, 10, 0], [0, 69, 31], [0, 0, 0]], ["background", "brick", "star"])
    assert found["largest"] == [("brick", "star", 0.31), ("background", "brick", 0.1)]
    assert found["shares"] == "900,100,;,690,310;,,"


def test_few_are_named_and_tiny_ones_are_not():
    counts = 1000 * np.eye(20, dtype=int) + 50 * (1 - np.eye(20, dtype=int))
    assert len(table(counts, [str(number) for number in range(20)])["largest"]) == MOST
    assert table([[9999, 1], [0, 5]], ["a", "b"])["largest"] == []


def test_the_picture_has_a_pixel_per_cell_whose_opacity_is_the_root_of_the_share():
    found = table([[3, 1], [0, 0]], ["a", "b"])
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(found["picture"].split(",")[1]))))
    assert pixels.shape == (2, 2, 4)
    assert pixels[0, :, 3].tolist() == [round(255 * 0.75**0.5), 128]
    assert pixels[1, :, 3].tolist() == [0, 0]
    assert (pixels[0, 0, :3] != pixels[0, 1, :3]).any()


def test_names_are_those_of_the_classes_so_far_and_visible():
    assert table([[1]], ["a\u202eb", "later"])["names"] == ["a\\u202eb"]


def test_undecided_pixels_have_a_column_and_an_empty_row():
    found = table([[60, 10, 30], [0, 5, 5]], ["a", "b", "later"])
    assert found["names"] == ["a", "b", "undecided"]
    assert found["shares"] == "600,100,300;,500,500;,,"
    assert found["largest"] == [("b", "undecided", 0.5), ("a", "undecided", 0.3), ("a", "b", 0.1)]

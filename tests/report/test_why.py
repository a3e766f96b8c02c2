"""The section "Why" from features made by hand: which classes are similar, in a table, in words and as a picture."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from contseg.report.why import heat, in_words, matrix, similar_classes, why

NAMES = ["ground", "star", "brick", "rare"]
NOWHERE = [np.nan, np.nan]


def stored(**changes) -> dict[str, np.ndarray]:
    """What `contseg explain` stores of a star that turned into a brick."""
    arrays = {
        "class": np.array("star"), "step": np.array(2), "images": np.array(7), "projection": np.array("pca"),
        "classes": np.array(NAMES), "colours": np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8),
        "points": np.arange(12, dtype=np.float32).reshape(6, 2), "labels": np.array([0, 1, 2] * 2),
        "when": np.repeat([0, 1], 3), "shares": np.array([0.7, 0.2]), "regions": np.array([1, 1, 1, 0]),
        "means_before": np.array([[1, 0], [1, 0.1], [0, 1], NOWHERE]),
        "means_after": np.array([[1, 0], [0.1, 1], [0, 1], NOWHERE]),
        "image0": np.full((8, 8, 3), 90, np.uint8), "labelled0": np.eye(8, dtype=bool),
        "before0": np.full((2, 2), 255, np.uint8), "after0": np.zeros((2, 2), np.uint8),
    }  # fmt: skip
    return arrays | changes


def pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_the_most_similar_class_is_another_one_with_regions():
    rows = {row["name"]: row for row in similar_classes(stored(), NAMES)}
    assert list(rows) == ["ground", "star", "brick"]
    assert [rows["star"][when][0] for when in ("before", "after")] == ["ground", "brick"]
    assert rows["star"]["own"] == pytest.approx(0.2 / 1.01)
    assert rows["brick"]["own"] == pytest.approx(1)


def test_it_is_said_in_words():
    rows = similar_classes(stored(), NAMES)
    assert in_words(rows, "star", 2) == [
        "Before step 2, star is most like ground (cosine 1.00).",
        "After step 2, star is most like brick (cosine 1.00).",
        "Cosine of its mean features before and after the step: 0.20.",
    ]
    assert in_words(rows, "rare", 2) == ["No test image that was read has a region of rare."]


def test_a_matrix_is_stretched_from_its_lowest_value_to_1():
    found = matrix(np.array([[1, 0.5], [np.nan, 0.75]]), ["a", "b"])
    assert found["low"] == 0.5
    assert pixels(found["picture"])[..., 3].tolist() == [[255, 0], [0, 128]]


def test_without_activation_an_image_is_grey_and_with_it_yellow():
    image = np.full((4, 4, 3), (200, 0, 100), np.uint8)
    grey, yellow = heat(image, np.array([[0]], np.uint8)), heat(image, np.array([[255]], np.uint8))
    assert grey.tolist() == np.full((4, 4, 3), 60).tolist()
    assert (yellow[..., 0] > 200).all()
    assert (yellow[..., 2] < 180).all()


def test_names_are_literal_and_pictures_are_complete():
    hostile = "$x_<b>\u202e"
    found = why(stored(**{"class": np.array(hostile), "classes": np.array(["ground", hostile, "brick", "rare"])}))
    assert found["name"] == "$x_<b>\\u202e"
    assert (found["has_before"], found["known_before"], len(found["pictures"])) == (True, True, 1)
    for drawing in (found["points"].light, found["points"].dark):
        ElementTree.fromstring(base64.b64decode(drawing.split(",")[1]))
    assert [name for name, _ in found["legend"]] == ["ground", "$x_<b>\\u202e", "brick"]


def test_a_first_step_has_only_what_is_after_it():
    arrays = {name: value for name, value in stored().items() if name not in ("before0", "means_before")}
    found = why(arrays | {"when": np.ones(6, dtype=int)})
    assert not found["has_before"]
    assert found["pictures"][0]["before"] is None
    assert list(found["matrices"]) == ["after the step"]
    assert all(row["own"] is row["before"] is None for row in found["rows"])

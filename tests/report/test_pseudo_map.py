"""What the picture of pseudo labels draws."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from contseg.report.origins import label_origins
from contseg.report.pseudo_map import MOST_CLASSES, draw_pseudo_labels, pseudo_legend

COLOURS = {"background": "#000000", "cat": "#800000", "dog": "#008000", "white": "#ffffff"}
EPOCHS = [(1, {"cat": 0.25, "ignored": 0.5}), (1, {"cat": 0.125}), (3, {"dog": 0.5, "unknown": 0.25, "cat": 0.125})]


@pytest.fixture
def axis():
    figure = draw_pseudo_labels(EPOCHS, COLOURS)
    yield figure.axes[0]
    plt.close(figure)


def test_labels_are_stacked_in_class_order_in_class_colours_and_named_once(axis):
    assert list(pseudo_legend(EPOCHS, COLOURS)) == ["ignored", "unknown", "dog", "cat"]  # from the top
    first, second = axis.patches[:4], axis.patches[4:]
    for bands, tops in (
        (first, [[25, 12.5], [25, 12.5], [25, 12.5], [75, 12.5]]),
        (second, [[12.5], [62.5], [87.5], [87.5]]),
    ):
        below = np.zeros(len(tops[0]))
        for band, top in zip(bands, tops, strict=True):
            assert band.get_data().values.tolist() == top
            assert np.array_equal(band.get_data().baseline, below)
            below = np.array(top)
    assert [to_hex(band.get_facecolor()) for band in first[:2]] == ["#800000", "#008000"]


def test_steps_stand_apart_and_are_named(axis):
    first, second = axis.patches[0].get_data().edges, axis.patches[4].get_data().edges
    assert first.tolist() == [0, 1, 2]
    assert second[0] > first[-1]
    assert {"step 1", "step 3"} <= {text.get_text() for text in axis.texts}
    assert axis.get_ylabel() == "pixels of the epoch in %"


def test_of_many_classes_the_rare_ones_are_drawn_as_one():
    names = [f"class {number}" for number in range(30)]
    shares = {name: (number + 1) / 1000 for number, name in enumerate(names)}
    figure = draw_pseudo_labels([(1, shares)], dict.fromkeys(names, "#123456"))
    (axis,) = figure.axes
    legend = list(pseudo_legend([(1, shares)], dict.fromkeys(names, "#123456")))
    assert len(legend) == MOST_CLASSES + 1
    assert legend[:2] == ["other classes", "class 29"]
    assert axis.patches[-1].get_data().values[0] == pytest.approx(100 * sum(shares.values()))
    plt.close(figure)


@pytest.mark.parametrize("unknown", [False, True])
def test_only_replaced_labels_have_colours_in_the_picture_of_origins(unknown):
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    first = int(unknown)  # the output "unknown" is in front
    given, final = (np.array([row], np.uint8) for row in ([0, 0, 2 + first, 255, 0], [0, 1 + first, 2 + first, 255, 255]))
    arrays = {"names": np.array(["a"]), "unknown": np.array(unknown), "image0": np.zeros((1, 5, 3), np.uint8)}
    ((found,),) = [one["images"] for one in label_origins({3: arrays | {"given0": given, "final0": final}}, colours)]
    assert (found["replaced"], found["ignored"]) == (0.2, 0.4)
    picture = Image.open(io.BytesIO(base64.b64decode(found["origin"].partition(",")[2]))).convert("RGB")
    assert [picture.getpixel((x, 0)) for x in range(5)] == [
        (255, 255, 255), (128, 0, 0), (255, 255, 255), (225, 225, 225), (225, 225, 225),
    ]  # fmt: skip

"""The maps of the Earth in a report: drawn from the files of the runs, first on the page, absent without them."""

import numpy as np
import pytest

from contseg.cli.demo_earth import predict_earth
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.report.earth import earth_table

MAP = np.zeros((4, 8), np.uint8)
COMMON = {
    "image": np.zeros((4, 8, 3), np.uint8), "truth": MAP, "classes": np.array(["water", "forest"]),
    "colours": np.array([[0, 0, 9], [0, 9, 0]], np.uint8),
}  # fmt: skip


def facts(steps: int, **arrays):
    return {"steps": steps, "maps": COMMON | arrays if arrays else {}}


def test_runs_of_one_step_are_next_to_the_truth_and_others_have_a_row():
    table = earth_table(
        {"mib": facts(2, step0=MAP, step1=MAP + 1), "joint": facts(1, step0=MAP), "other": facts(3)},
    )
    assert list(table["single"]) == ["joint"]
    assert {name: len(maps) for name, maps in table["several"].items()} == {"mib": 2}
    assert table["several"]["mib"][0] == table["single"]["joint"] == table["truth"] != table["several"]["mib"][1]
    assert table["legend"] == [("water", "#000009"), ("forest", "#000900")]


def test_without_maps_there_is_no_table():
    assert earth_table({"mib": facts(2)}) is None


@pytest.mark.parametrize("land_at", [(0, 0), (1, 2)])
def test_blocks_are_predicted_in_their_place_and_those_without_land_are_water(land_at):
    segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}, head={"width": 4}), [2]).eval()
    segmenter.classifier.steps[0].bias.data[1] = 1e3  # predicts class 1 everywhere
    land = np.zeros((300, 450), bool)
    row, column = land_at
    land[row * 150 + 70, column * 150 + 3] = True
    found = predict_earth(segmenter, np.zeros((300, 450, 3), np.uint8), land)
    expected = np.zeros((30, 45), np.uint8)
    expected[row * 15 : row * 15 + 15, column * 15 : column * 15 + 15] = 1
    assert np.array_equal(found, expected)

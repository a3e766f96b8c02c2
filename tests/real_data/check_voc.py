"""Published selections against a real VOC tree: `make test-voc CONTSEG_VOC=.../VOC2012`. Not collected otherwise."""

import hashlib
import json
import os
from importlib.resources import files

import pytest

from contseg.data.presence import build_presence
from contseg.data.voc import VOC
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.selection import select

ROWS = [
    row
    for row in json.loads((files("contseg.scenarios") / "published_selections.json").read_text())["rows"]
    if row["dataset"] == "voc"
]
COUNTS = {
    ("15-1", "disjoint"): [8437, 378, 299, 420, 500, 548],
    ("15-1", "overlapped"): [9568, 487, 299, 491, 500, 548],
    ("15-5", "disjoint"): [8437, 2145],
    ("15-5", "overlapped"): [9568, 2145],
    ("19-1", "disjoint"): [10034, 548],
    ("19-1", "overlapped"): [10410, 548],
}


@pytest.fixture(scope="module")
def voc() -> VOC:
    assert os.environ.get("CONTSEG_VOC"), "set CONTSEG_VOC to the VOC2012 folder"
    return VOC(os.environ["CONTSEG_VOC"])


@pytest.mark.parametrize(("split", "setting"), COUNTS)
def test_training_images_per_step(voc, split, setting):
    scenario = Scenario(voc, ScenarioOptions(split=split, setting=setting))
    assert [len(step.train) for step in scenario] == COUNTS[split, setting]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['task']}-{row['step']}-{row['mode']}-{row['overlap']}")
def test_published_selection(voc, row):
    setting = "overlapped" if row["overlap"] else "disjoint"
    step = Scenario(voc, ScenarioOptions(split=row["task"], setting=setting))[row["step"]]
    names = step.train.names
    if row["mode"] == "val":
        presence = build_presence(voc, "test")
        names = [presence.names[index] for index in select(presence, step.new_classes, (), "overlapped")]
    assert len(names) == row["count"]
    assert (names[0], names[-1]) == (row["first"], row["last"])
    assert hashlib.sha1("\n".join(names).encode()).hexdigest() == row["sha1"]

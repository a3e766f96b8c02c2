"""Published selections against real trees: `make test-real CONTSEG_VOC=.../VOC2012 CONTSEG_ADE=... CONTSEG_ISPRS=...`.

Any of the folders may be left out. Not collected otherwise.
"""

import hashlib
import json
import os
from functools import cache
from importlib.resources import files

import pytest

from contseg.data.open import open_dataset
from contseg.data.presence import build_presence
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.selection import select

ROWS = json.loads((files("contseg.scenarios") / "published_selections.json").read_text())["rows"]
COUNTS = {
    ("voc", "15-1", "disjoint"): [8437, 378, 299, 420, 500, 548],
    ("voc", "15-1", "overlapped"): [9568, 487, 299, 491, 500, 548],
    ("voc", "15-5", "disjoint"): [8437, 2145],
    ("voc", "15-5", "overlapped"): [9568, 2145],
    ("voc", "19-1", "disjoint"): [10034, 548],
    ("voc", "19-1", "overlapped"): [10410, 548],
    ("voc", "10-1", "overlapped"): [6139, 528, 1177, 444, 482, 3898, 487, 299, 491, 500, 548],
    ("voc", "5-3", "overlapped"): [2836, 2331, 1542, 2095, 4484, 1468],
    ("ade", "100-10", "overlapped"): [20192, 1710, 2294, 2747, 4279, 2844],
    ("ade", "100-50", "overlapped"): [20192, 9390],
    ("ade", "50-50", "overlapped"): [20177, 13186, 9390],
}
OPEN = {"voc": ("voc", {}), "ade": ("ade20k", {}), "ISPRS": ("isprs", {"variant": "released"})}


@cache
def dataset_of(family: str):
    variable = f"CONTSEG_{family.upper()}"
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no folder")
    name, options = OPEN[family]
    return open_dataset(name, os.environ[variable], **options)


@pytest.mark.parametrize(("family", "split", "setting"), COUNTS)
def test_training_images_per_step(family, split, setting):
    scenario = Scenario(dataset_of(family), ScenarioOptions(split=split, setting=setting))
    assert [len(step.train) for step in scenario] == COUNTS[family, split, setting]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(str(row[key]) for key in ("dataset", "task", "step", "mode")))
def test_published_selection(row):
    dataset = dataset_of(row["dataset"])
    setting = "overlapped" if row["overlap"] else "disjoint"
    step = Scenario(dataset, ScenarioOptions(split=row["task"], setting=setting))[row["step"]]
    names = step.train.names
    if row["mode"] == "val":
        presence = build_presence(dataset, "test")
        rows = select(presence, step.new_classes, step.old_classes, setting, dataset.selection_offset)
        names = [presence.names[index] for index in rows]
    assert len(names) == row["count"]
    assert (names[0], names[-1]) == (row["first"], row["last"])
    assert hashlib.sha1("\n".join(names).encode()).hexdigest() == row["sha1"]

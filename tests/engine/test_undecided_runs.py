"""Runs whose networks leave pixels undecided, from training to the page. They begin with a network that is sure already."""

import json

import numpy as np
import pytest
from PIL import Image

from contseg.data.datasets.digits import Digits
from contseg.engine.inputs import marks
from contseg.errors import ContsegError
from contseg.evaluation.confusion import IGNORED_WARNING
from contseg.evaluation.metrics import run_figures
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from contseg.report.page import write_report
from tests.engine.runs import Watching, command, interrupted, learn, lines, same, weights
from tests.engine.test_mask_runs import SMALL
from tests.panoptic_runs import saved

LEARNED = "network.background=learned"
RELEASED = ["method.variant=released", "network.head.decision=owner-simcis", LEARNED]


def recipe_of(name: str, start=None, *overrides: str):
    given = [] if start is None else [f"start_from={str(start)!r}"]
    network = [] if start is None else [key for key in SMALL if key.startswith("network.")]
    keys = [key for key in SMALL if key not in network]
    return read_recipe(f"digits/{name}_5-1", [*keys, *given, *overrides])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """`start(decision)`: the file of a segmenter of the first five digits."""
    return lambda **head: saved(tmp_path_factory.mktemp("start") / "sure.safetensors", Digits.classes.subset(range(6)), **head)

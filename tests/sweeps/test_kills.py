"""A sweep whose workers and leaders are killed at random, and which two leaders finish, equals an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contseg.engine.run import Run
from contseg.sweeps.cells import Cell
from contseg.sweeps.sweep import Sweep
from tests.conftest import TINY
from tests.engine.processes import alive, linux, wait_for
from tests.engine.runs import lines, same, weights

pytestmark = [pytest.mark.slow, linux]

RECIPES = ["digits/finetune_5-1", "digits/mib_5-1", "digits/plop_5-1"]
SMALL = [*TINY, "scenario.split=5-5", "training.epochs=2", "training.batch=10"]
WORKER = "contseg.sweeps.worker"
KILLS = 10


def start(folder: Path) -> subprocess.Popen:
    """A leader, as a command."""
    words = [*RECIPES, *SMALL, "--seeds", "2", "--orders", "2", "--jobs", "2", "--out", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "contseg", "sweep", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CONTSEG_TEST_MARK": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> str:
    printed, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, printed + errors
    return printed


def cells(folder: Path) -> list[Cell]:
    return Sweep.read(folder).cells(folder)


def workers(folder: Path) -> list[int]:
    """The process numbers of the workers of a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if WORKER in words and any(word.startswith(str(folder)) for word in words):
            found.append(int(place.name))
    return found


def unfinished(folder: Path) -> int:
    return sum(not (cell.folder / "summary.json").is_file() for cell in cells(folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    ended(start(folder))
    return folder


def assert_equal(folder: Path, whole: Path) -> None:
    assert len(cells(whole)) == 12
    for mine, theirs in zip(cells(folder), cells(whole), strict=True):
        assert mine.finished
        assert lines(mine.run) == lines(theirs.run)
        for step in (0, 1):
            assert same(weights(mine.run, step), weights(theirs.run, step))
        assert {**mine.run.summary(), "seconds": 0} == {**theirs.run.summary(), "seconds": 0}


def test_step_0_is_trained_once_per_seed_and_order(whole):
    assert len(list((whole / "cache").iterdir())) == 4
    for seed in ("0", "0,seed-1", "1", "1,seed-1"):
        firsts = [Run(whole / recipe.replace("/", "-") / seed).metrics()[0] for recipe in RECIPES]
        assert firsts[0] == firsts[1] == firsts[2]  # with the seconds of the run that trained it


def test_killed_at_random_and_finished_by_two_leaders(whole, tmp_path):
    folder, chance = tmp_path / "sweep", random.Random(0)
    leader = start(folder)
    wait_for(lambda: workers(folder), leader)
    for kill in range(KILLS):
        time.sleep(chance.uniform(0, 3))
        running = workers(folder)
        if running and kill % 3:
            os.kill(chance.choice(running), signal.SIGKILL)
        else:
            leader.send_signal(signal.SIGKILL)
            leader.communicate()
            leader = start(folder)
            wait_for(lambda: workers(folder) or not unfinished(folder), leader)
    leader.send_signal(signal.SIGKILL)
    leader.communicate()
    leaders = [start(folder), start(folder)]
    for one in leaders:
        ended(one)
    assert not workers(folder)
    assert not alive(str(folder))
    assert_equal(folder, whole)
    origins = [(cell.folder / "log.txt").read_text() for cell in cells(folder)]
    assert sum(text.count("process ") for text in origins) > 12  # some were continued
    again = [cell.run.metrics() for cell in cells(folder)]
    ended(start(folder))
    assert [cell.run.metrics() for cell in cells(folder)] == again  # nothing is trained again

"""A sweep whose workers and leaders are killed at random, and which two leaders finish, equals an undisturbed one."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from contseg.engine.run import Run
from contseg.lock import OF_RUN
from contseg.sweeps.cells import Cell
from contseg.sweeps.sweep import Sweep
from tests.conftest import TINY
from tests.engine.processes import linux, wait_for
from tests.engine.runs import lines, same, weights
from tests.sweeps.forked import Forked, lead

pytestmark = [pytest.mark.slow, linux]

RECIPES = ["digits/finetune_5-1", "digits/mib_5-1", "digits/plop_5-1"]
SMALL = [*TINY, "scenario.split=5-5", "training.epochs=2", "training.batch=10"]
SWEEP = Sweep(recipes=RECIPES, seeds=2, orders=2, overrides=SMALL)
KILLS = 10


def cells(folder: Path) -> list[Cell]:
    return SWEEP.cells(folder)


def owners(folder: Path) -> list[int]:
    """The processes that own a run, and are not ended."""
    found = []
    for lock in folder.glob(f"*/*/{OF_RUN}"):
        try:
            process = json.loads(lock.read_text())["process"]
            os.kill(process, 0)
            found.append(process)
        except (OSError, ValueError):
            continue
    return found


def finished(folder: Path) -> int:
    return len(list(folder.glob("*/*/summary.json")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    SWEEP.write(folder)
    assert lead(folder).wait() == 0
    assert len(cells(folder)) == finished(folder) == 12
    return folder


def test_step_0_is_trained_once_per_seed_and_order(whole):
    assert len(list((whole / "cache").iterdir())) == 4
    for name in ("0", "0,seed-1", "1", "1,seed-1"):
        firsts = [Run(whole / recipe.replace("/", "-") / name).metrics()[0] for recipe in RECIPES]
        assert firsts[0] == firsts[1] == firsts[2]  # with the speed of the run that trained it


def test_killed_at_random_and_finished_by_two_leaders(whole, tmp_path):
    folder, chance = tmp_path / "sweep", random.Random(0)
    SWEEP.write(folder)
    leaders, killed = [lead(folder)], []
    while len(killed) < KILLS:
        if leaders[-1].poll() is not None:  # killed while it owned a run, to begin it
            leaders.append(lead(folder))
        wait_for(lambda: finished(folder) >= len(killed) or leaders[-1].poll() is not None)  # from the start to the end
        wait_for(lambda: owners(folder) or leaders[-1].poll() is not None)
        time.sleep(chance.uniform(0, 0.7))
        running = owners(folder)
        if len(killed) % 3 and running:
            killed.append(chance.choice(running))
            os.kill(killed[-1], signal.SIGKILL)
        elif len(killed) % 3 == 0:
            leaders[-1].kill(signal.SIGKILL)
            killed.append(leaders[-1].wait())
            leaders.append(lead(folder))
        assert finished(folder) < 12, "too fast to be killed ten times"
    leaders[-1].kill(signal.SIGKILL)
    leaders[-1].wait()
    assert [one.wait() for one in finish(folder)] == [0, 0]
    assert_equal(folder, whole)
    logs = [(cell.folder / "log.txt").read_text() for cell in cells(folder)]
    assert sum(log.count("process ") for log in logs) > 12  # some continued
    before = [(path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*/*/metrics.jsonl"))]
    assert lead(folder).wait() == 0
    assert [(path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*/*/metrics.jsonl"))] == before


def finish(folder: Path) -> list[Forked]:
    """Two leaders that start at once."""
    return [lead(folder), lead(folder)]


def test_two_leaders_do_no_work_twice(whole, tmp_path):
    folder = tmp_path / "sweep"
    SWEEP.write(folder)
    assert [one.wait() for one in finish(folder)] == [0, 0]
    assert_equal(folder, whole)
    for cell in cells(folder):
        assert len((cell.folder / "origin.jsonl").read_text().splitlines()) == 1
    assert len(list((folder / "cache").iterdir())) == 4
    for name in ("0", "1,seed-1"):
        firsts = [Run(folder / recipe.replace("/", "-") / name).metrics()[0] for recipe in RECIPES]
        assert firsts[0] == firsts[1] == firsts[2]


def assert_equal(folder: Path, whole: Path) -> None:
    """Bit for bit, but the clocks."""
    for mine, theirs in zip(cells(folder), cells(whole), strict=True):
        assert mine.finished
        assert lines(mine.run) == lines(theirs.run)
        for step in (0, 1):
            assert same(weights(mine.run, step), weights(theirs.run, step))
        assert {**mine.run.summary(), "seconds": 0} == {**theirs.run.summary(), "seconds": 0}

"""A run killed by the system (a real process, SIGKILL) goes on with `contseg train --resume` and ends the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contseg.engine.run import Run
from tests.conftest import TINY
from tests.engine.runs import lines, same, weights

pytestmark = pytest.mark.slow

# ten updates of some 50 ms in an epoch, so that a moment can be met
RECIPE = ["digits/plop_5-1", *TINY, "data.options={train: 200, test: 40, size: 96}", "scenario.split=5-5"]
OPTIONS = ["data.crop=96", "training.batch=10", "training.epochs=3", "network.width=16"]


def contseg(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # the number of threads decides the order of sums
    return subprocess.Popen(
        [sys.executable, "-m", "contseg", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finished(contseg("train", *RECIPE, *OPTIONS, "--out", str(folder), "--no-cache"))
    return Run(folder)


def there(name: str):
    return lambda run: (run.folder / name).exists()


def after_epoch(count: int):
    """Some time into the epoch after the `count`-th: between its batches."""

    def reached(run: Run) -> bool:
        if len(lines(run, "epoch")) < count:
            return False
        time.sleep(0.15)
        return True

    return reached


MOMENTS = {
    "between batches": after_epoch(1),
    "while step 0 is tested": there("steps/00/confusion.npz"),
    "between the steps": lambda run: len(lines(run, "step")) == 1,
}


def kill_at(folder: Path, reached, *command: str) -> None:
    process, run = contseg(*command), Run(folder)
    deadline = time.monotonic() + 200
    while not reached(run):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert run.summary() is None


def assert_like(run: Run, whole: Run) -> None:
    assert lines(run) == lines(whole)
    for step in (0, 1):
        assert same(weights(run, step), weights(whole, step))
        assert run.segmenter_path(step).read_bytes() == whole.segmenter_path(step).read_bytes()
    assert {**run.summary(), "seconds": 0} == {**whole.summary(), "seconds": 0}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_once(whole, tmp_path, moment):
    folder = tmp_path / "run"
    kill_at(folder, MOMENTS[moment], "train", *RECIPE, *OPTIONS, "--out", str(folder), "--no-cache")
    finished(contseg("train", "--resume", str(folder), "--no-cache"))
    assert_like(Run(folder), whole)


def test_killed_again_and_again(whole, tmp_path):
    folder = tmp_path / "run"
    kill_at(folder, after_epoch(1), "train", *RECIPE, *OPTIONS, "--out", str(folder), "--no-cache")
    for count in (3, 4):
        kill_at(folder, after_epoch(count), "train", "--resume", str(folder), "--no-cache")
    finished(contseg("train", "--resume", str(folder), "--no-cache"))
    assert_like(Run(folder), whole)

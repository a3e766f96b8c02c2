"""`contseg tune`: searched on one class order or dataset, reported on another, and continued after a kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from contseg.cli import tune as module
from contseg.cli.sweep import train_rows
from contseg.interruption import Interrupted
from contseg.lock import held
from contseg.sweeps.cells import Cell
from contseg.sweeps.study import STUDY, Study
from contseg.sweeps.tune import FILE, REPORT, SEARCH, Tune, cells
from contseg.sweeps.tune_page import PAGE
from tests.conftest import TINY
from tests.engine.runs import command

PLOP = "digits/plop_5-1"
WORDS = [PLOP, "--on", "seed:1", "--space", "method.pod=1e-3:1e-1:log"]


@pytest.fixture
def pretended(monkeypatch):
    """Runs are not trained, but have figures that depend on their values; the folders are listed in their order.

    A run whose folder contains a word of `failing` fails, and the sweep is interrupted before the run number `stop`.
    """
    pytest.importorskip("optuna")
    given = type("Given", (), {"folders": [], "failing": "none", "stop": -1})()

    def train(rows, overrides, out, ways):
        problems = {}
        for cell in cells(rows, out):
            if (cell.folder / "summary.json").is_file():
                continue
            if len(given.folders) == given.stop:
                given.stop = -1
                raise Interrupted(15)
            given.folders.append(cell.folder.relative_to(out.parent).as_posix())
            if given.failing in cell.row:
                problems[cell.title] = "the loss is not finite"
                continue
            cell.folder.mkdir(parents=True)
            figure = 50 - 100 * abs(cell.recipe.method["pod"] - 0.03) + cell.seed
            plan = f"plan-{cell.order}"
            figures = {"old": figure, "new": 1.0, "all": figure, "forgetting": 2.0, "seconds": 60.0, "plan": plan}
            (cell.folder / "summary.json").write_text(json.dumps(figures))
            made = dict.fromkeys(("python", "torch", "numpy", "system"), "x")
            (cell.folder / "environment.json").write_text(json.dumps(made))
        return problems

    monkeypatch.setattr(module, "train_rows", train)
    monkeypatch.setattr(module, "tasks_of", lambda cells: [])
    monkeypatch.setattr(Cell, "begun", True)
    return given


def test_the_best_values_of_the_search_are_reported_on_other_data(tmp_path, pretended):
    out = tmp_path / "tune"
    code, output, errors = command("tune", *WORDS, "--trials", "6", "--seeds", "2", "--out", out)
    assert (code, errors) == (0, "")
    assert pretended.folders[:6] == [f"search/trial-00{number}/0,seed-1" for number in range(6)]
    study = Study(Tune.read(out), out)
    best = study.best()
    assert pretended.folders[6:] == [
        f"report/{row}/{seed}" for seed in (0, 1) for row in ("digits-plop_5-1", f"trial-00{best}")
    ]  # fmt: skip
    text = (out / PAGE).read_text()
    assert f"trial-00{best} of 6: `method.pod={study.values()[best]['method.pod']}`" in text
    assert f"No run on {PLOP} was used to choose them" in text
    assert "the test images of the report were also scored in the search" in text
    assert "Warning" not in text
    assert "6 of 6, 0 failed" in text
    assert f"page: {out / PAGE}" in output.replace("\n", "")


def test_it_goes_on_where_it_was_interrupted_and_with_more_trials(tmp_path, pretended):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert command("tune", *WORDS, "--trials", "6", "--out", whole)[0] == 0
    expected = list(pretended.folders)
    pretended.folders.clear()
    for stop in (2, 5, 8):
        pretended.stop = stop
        words = [*WORDS, "--trials", "6", "--out", cut] if stop == 2 else [cut]
        code, _, errors = command("tune", *words)
        assert (code, errors) == (143, f"Interrupted. Resume with: contseg tune {cut}\n")
    assert command("tune", cut)[0] == 0
    assert pretended.folders == expected
    assert (cut / PAGE).read_text().replace(str(cut), str(whole)) == (whole / PAGE).read_text()
    assert command("tune", cut, "--trials", "8")[0] == 0
    assert pretended.folders[len(expected) : len(expected) + 2] == [f"search/trial-00{number}/0,seed-1" for number in (6, 7)]


def test_a_trial_that_fails_has_no_score_and_the_search_continues(tmp_path, pretended):
    pretended.failing = "trial-001"
    assert command("tune", *WORDS, "--trials", "5", "--out", tmp_path)[0] == 0
    assert Study(Tune.read(tmp_path), tmp_path).state(1) == "failed"
    assert "5 of 5, 1 failed" in (tmp_path / PAGE).read_text()


def test_a_search_without_a_result_is_one_line_and_is_tried_again(tmp_path, pretended):
    pretended.failing = "trial"
    code, _, errors = command("tune", *WORDS, "--trials", "3", "--out", tmp_path)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "no trial finished (the loss is not finite)" in errors
    pretended.failing = "none"
    assert command("tune", tmp_path)[0] == 0


def test_another_tuning_in_the_folder_is_refused_with_what_differs(tmp_path, pretended):
    assert command("tune", *WORDS, "--trials", "2", "--out", tmp_path)[0] == 0
    code, _, errors = command("tune", *WORDS, "--trials", "2", "--sampler-seed", "1", "--out", tmp_path)
    assert code == 2
    assert "contains another tuning (sampler_seed was 0, is 1)" in errors


def test_one_command_at_a_time_works_on_a_folder(tmp_path, pretended):
    with held(tmp_path / module.LOCK, "other"):
        code, _, errors = command("tune", *WORDS, "--out", tmp_path)
    assert code == 2
    assert "a tuning is already running there" in errors


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "expected one recipe, got 0"),
        ([PLOP, "digits/mib_5-1"], "expected one recipe, got 2"),
        ([PLOP], "--on is missing"),
        ([PLOP, "--on", "seed:1"], "--space: is missing"),
        ([PLOP, "--on", "own", "--space", "method.pod=0:1"], "is also reported"),
        ([PLOP, "--on", "seed:1", "--space", "method.pod=1:0"], "1 is not below 0"),
        ([*WORDS, "--search-seeds", "x"], "--search-seeds: expected"),
        ([*WORDS, "--trials", "0"], "--trials"),
        ([*WORDS, "--round", "0"], "--round"),
        ([*WORDS, "--goal", "miou"], "--goal"),
        ([*WORDS, "--report-on", "a/b"], "'a/b': not found"),
        ([*WORDS, "training.lrr=1"], "training.lrr"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(tmp_path, words, problem):
    pytest.importorskip("optuna")
    code, _, errors = command("tune", *words, "--out", tmp_path / "out")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert problem in errors
    assert not (tmp_path / "out").exists()


def test_a_description_has_no_options_next_to_it_but_trials(tmp_path):
    pytest.importorskip("optuna")
    Tune(recipe=PLOP, on=["seed:1"], space={"method.pod": "0:1"}).write(tmp_path)
    code, _, errors = command("tune", tmp_path, "--seeds", "2")
    assert code == 2
    assert "seeds cannot be added to" in errors


def test_without_optuna_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("contseg.sweeps.study.importlib.util.find_spec", lambda name: None)
    code, _, errors = command("tune", *WORDS, "--out", tmp_path / "out")
    assert (code, errors) == (2, "error: tune: optuna is not installed; pip install 'contseg[tune]'\n")


@pytest.mark.slow
def test_a_killed_tuning_has_the_trials_and_figures_of_an_undisturbed_one(tmp_path):
    pytest.importorskip("optuna")
    assert module.train_rows is train_rows
    words = [*WORDS, *TINY, "training.epochs=1", "--trials", "3", "--round", "2", "--seeds", "1", "--jobs", "2"]
    start = [sys.executable, "-m", "contseg", "tune", *map(str, words)]
    draw = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen([*start, "--out", str(tmp_path / "killed")], start_new_session=True)
        time.sleep(draw.uniform(3, 15))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for name in ("killed", "whole"):
        subprocess.run([*start, "--out", str(tmp_path / name)], check=True)
    killed, whole = (tmp_path / name for name in ("killed", "whole"))
    assert (killed / FILE).read_bytes() == (whole / FILE).read_bytes()
    assert (killed / STUDY).is_file()
    found = {path.relative_to(whole): path.read_bytes() for path in whole.glob("*/*/*/steps/*/segmenter.safetensors")}
    assert len({path.parts[:3] for path in found}) >= 4
    assert found == {
        path.relative_to(killed): path.read_bytes() for path in killed.glob("*/*/*/steps/*/segmenter.safetensors")
    }
    assert {path.parts[0] for path in found} == {SEARCH, REPORT}

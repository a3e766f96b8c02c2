"""`make bench`: rows with bars, kept figures that survive a stop, and the table of the page."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

import benchmarks.__main__ as bench
from benchmarks.page import PAGE, bench_block, block, cells
from benchmarks.results import FOLDER, Results
from benchmarks.rows import BARRED, ROWS, Row, measurement, unlisted
from benchmarks.steps import DEFAULT, TrainingStep
from benchmarks.steps_bench import idrnet_training
from benchmarks.timing import in_pairs
from contseg.engine.options import TrainingOptions
from contseg.models.options import NetworkOptions

MADE = {
    "cpu": "A", "cores": 2, "threads": 2, "gpu": None, "versions": {"torch": "2"}, "commit": "abc", "date": "2026-01-02",
}  # fmt: skip
SMALL = replace(DEFAULT, network=NetworkOptions(backbone={"name": "resnet18", "width": 8}, head={"width": 16}), crop=64)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    return path


def run(tmp_path, page, *arguments):
    return bench.main(["--results", str(tmp_path / "results.json"), "--page", str(page), *arguments])


def clock_of(*moments):
    return partial(next, iter(moments))


def test_pairs_run_in_turn_and_an_odd_one_does_not_move_the_median():
    calls = []
    # three pairs: 2 and 1 s, then 1 and 2 s (the yardstick is first), then a slow 90 and 1 s
    clock = clock_of(0, 2, 2, 3, 3, 4, 4, 6, 6, 96, 96, 97)
    found = in_pairs(lambda: calls.append("ours"), lambda: calls.append("bare"), 3, clock)
    assert calls == ["ours", "bare", "ours", "bare", "bare", "ours", "ours", "bare"]
    assert (found.ratio, found.lowest, found.highest) == (2.0, 2.0, 90.0)


def test_every_measurement_has_a_row():
    assert unlisted() == {}


def test_every_bar_of_a_measured_row_has_a_direction():
    assert [row.name for row in BARRED if row.more_is_better] == ["sample"]
    assert all(row.bar is not None for row in BARRED if row.name != "windows-memory")
    for name in ("finetune-step", "lag-step", "idrnet-step", "sample", "mib-losses", "pod"):
        assert measurement(ROWS[name]) is not None


def test_what_was_measured_is_kept_when_the_next_row_ends_the_program(tmp_path, page, monkeypatch):
    def killed(row):
        if row.name == "pod":
            raise KeyboardInterrupt
        return {"value": 1.25}

    monkeypatch.setattr(bench, "measure", killed)
    monkeypatch.setattr(bench, "origin", lambda: MADE)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, page)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["rows"]["mib-losses"] == {"value": 1.25, "origin": MADE}
    assert "pod" not in kept["rows"]

    measured = []
    monkeypatch.setattr(bench, "measure", lambda row: measured.append(row.name) or {"value": 1.5})
    assert run(tmp_path, page) == 0
    assert "pod" in measured
    assert "mib-losses" not in measured
    assert Results(tmp_path / "results.json")["mib-losses"]["value"] == 1.25


def test_chosen_rows_are_measured_again_and_the_others_kept_with_their_commit(tmp_path, page, monkeypatch):
    results = Results(tmp_path / "results.json")
    results.keep("pod", {"value": 9.0}, MADE)
    results.keep("sample", {"value": 0.4}, MADE)
    monkeypatch.setattr(bench, "origin", lambda: MADE | {"commit": "def"})
    monkeypatch.setattr(bench, "measure", lambda row: {"value": 1.5})
    assert run(tmp_path, page, "--rows", "pod") == 0
    results = Results(tmp_path / "results.json")
    assert (results["pod"]["value"], results["pod"]["origin"]["commit"]) == (1.5, "def")
    assert (results["sample"]["value"], results["sample"]["origin"]["commit"]) == (0.4, "abc")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 14.6 | 1.500 | at most 2 | ok |" in text
    assert "commit abc" in text
    assert "commit def" in text


def test_changed_files_are_always_measured_again(tmp_path):
    results = Results(tmp_path / "results.json")
    results.keep("pod", {"value": 1.0}, MADE | {"commit": "abc+"})
    assert not results.is_current("pod", MADE | {"commit": "abc+"})
    results.keep("pod", {"value": 1.0}, MADE)
    assert results.is_current("pod", MADE)
    assert not results.is_current("pod", MADE | {"cpu": "B"})


def test_a_row_that_ends_with_an_error_leaves_the_others(tmp_path, page, monkeypatch, capsys):
    def failing(row):
        if row.name == "pod":
            raise RuntimeError("no memory\nmore")
        return {"value": 1.0}

    monkeypatch.setattr(bench, "measure", failing)
    assert run(tmp_path, page, "--rows", "pod,sample") == 0
    assert "not measured: pod: no memory" in capsys.readouterr().out
    assert Results(tmp_path / "results.json")["sample"]["value"] == 1.0


def test_an_unknown_row_is_one_line(tmp_path, page, capsys):
    assert run(tmp_path, page, "--rows", "podd") == 1
    assert capsys.readouterr().err.startswith("--rows: unknown row 'podd'; did you mean 'pod'?")


@pytest.mark.parametrize(
    ("unit", "value", "shown", "verdict"),
    [
        ("ratio", 1.0604, "1.060", "ok"),
        ("ratio", 1.0606, "1.061", "short"),
        ("share", 1.1, "1.100", "ok"),
        ("MiB", 46.41, "46.4 MiB", "short"),
        ("ratio", None, "-", "-"),
    ],
)
def test_a_verdict_is_that_of_the_figure_that_is_shown(tmp_path, unit, value, shown, verdict):
    results, row = Results(tmp_path / "results.json"), Row("a", "work", "plain", 1.06, unit)
    if value is not None:
        results.keep("a", {"value": value}, MADE)
    line = cells(row, results, Results(tmp_path / "none.json"))
    assert (line[3], line[5], line[6]) == (shown, verdict, "")


def test_notes_are_shown_whatever_the_verdict(tmp_path):
    shown = bench_block(Results(tmp_path / "none.json"), Results(tmp_path / "none.json"))
    lines = shown.replace("\n  ", " ").splitlines()
    assert {f"* {row.work}: {row.note}" for row in ROWS.values() if row.note} == {
        one for one in lines if one.startswith("*")
    }


@pytest.mark.parametrize("warm", [True, False])
def test_a_pair_of_minutes_has_no_run_to_warm_up(warm):
    runs = []
    found = in_pairs(lambda: runs.append("ours"), lambda: runs.append("yardstick"), pairs=1, warm=warm)
    assert runs == ["ours", "yardstick"] * (1 + warm)
    assert found.pairs == 1


def test_the_page_shows_the_kept_results():
    shown = block((FOLDER.parent / PAGE).read_text(encoding="utf-8"), "bench")
    assert shown == bench_block(Results(bench.RESULTS), Results(bench.GPU_RESULTS))


@pytest.mark.parametrize("name", ["finetune", "plop", "idec"])
def test_a_training_step_is_that_of_the_engine_and_its_networks_move_no_weight(name):
    step = TrainingStep(name, SMALL)
    weights = [*step.updater.student.classifier.steps[-1].parameters()]
    before = [weight.detach().clone() for weight in weights]
    step.bare()
    assert all(weight.grad is not None for weight in weights)
    assert all(map(torch.equal, before, weights))
    step.update()
    assert not all(map(torch.equal, before, weights))


def test_student_and_teacher_are_compiled_also_after_a_resume():
    step = TrainingStep("mib", replace(SMALL, training=TrainingOptions(compile=True)))
    assert step.updater.teacher._compiled_call_impl is not None
    assert step.updater.student._compiled_call_impl is not None


def test_both_passes_of_idrnet_are_in_its_step():
    ours, plain = idrnet_training(crop=64, width=4, head_width=8)
    tables = ours.__self__.updater.student.head.tables
    before = tables.counter.clone()
    ours()
    plain()
    assert tables.counter.sum() > before.sum()

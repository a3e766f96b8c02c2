"""What `train` writes into a log: text for readers, and with --log json an object per line for programs."""

import io
import json
import os
import re
import subprocess
import sys
import warnings
from contextlib import redirect_stdout

import pytest

from contseg.cli.json_log import json_log
from contseg.cli.progress import print_line
from contseg.cli.streams import warn_in_one_line
from contseg.engine.run import Run
from contseg.interruption import Interrupted
from contseg.recipes.build import start_run
from contseg.report.log import PERIOD, JsonLog, TextLog
from contseg.sweeps.worker import work
from tests.conftest import TINY
from tests.engine.runs import command, tiny_recipe

SHORT = [*TINY, "data.options={train: 10, test: 2, size: 32}", "scenario.split=5-5", "training.batch=10"]


def test_a_warning_is_one_line_without_a_place_in_the_code(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    warn_in_one_line()
    assert warnings.formatwarning(UserWarning("more\n  masks\x1b"), UserWarning, "x.py", 3) == "warning: more masks\\x1b\n"


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def logged(kind: type, events) -> list[str]:
    """The lines of a log for events, each with the seconds that pass before it."""
    clock, written = Clock(), []
    log = kind(written.append, clock=clock)
    for seconds, name, *arguments in events:
        clock.now += seconds
        getattr(log, name)(*arguments)
    return written


FIGURES = {"kind": "step", "step": 0, "old": 0.5, "new": None, "all": 0.25, "notes": {}}
LONG_EPOCH = [
    (0, "start", [4, 8]),
    (0, "step_started", 0, 2, ("a", "b"), 4),
    (PERIOD / 2, "updated", 0, 2, 0.5, 6),
    (PERIOD / 2, "updated", 0, 2, 0.25, 6),
    (PERIOD / 2, "updated", 1, 2, 0.25, 6),
]


def test_a_long_epoch_has_a_line_every_few_minutes_with_the_time_left_of_the_step_and_of_the_run():
    assert logged(TextLog, LONG_EPOCH) == [
        "step 0/1 (a, b): epoch 0/1  2 of 4 updates  loss 0.250  0.1 images/s"
        "  2 min 0 s left in this step, 10 min 0 s in the run"
    ]


def test_a_short_epoch_has_only_the_line_at_its_end():
    start, step, *_ = LONG_EPOCH
    short = [start, step]
    for epoch in (0, 1):
        short += [(PERIOD / 2, "updated", epoch, 2, 0.5, 6), (0, "updated", epoch, 2, 0.5, 6)]
        short += [(0, "epoch_finished", epoch, 2, 0.5, 4.0)]
    assert [line.partition("  ")[0] for line in logged(TextLog, short)] == [
        "step 0/1 (a, b): epoch 0/1", "step 0/1 (a, b): epoch 1/1"
    ]  # fmt: skip


def test_a_long_test_has_lines_too():
    events = [*LONG_EPOCH[:2], (0, "evaluating", 9), *[(PERIOD, "evaluated")] * 2, (0, "step_finished", 0, FIGURES)]
    assert logged(TextLog, events) == [
        "step 0/1 (a, b): testing  1 of 9 batches",
        "step 0/1 (a, b): testing  2 of 9 batches",
        "step 0/1 (a, b): old 50.0  new -  all 25.0",
    ]


def test_of_a_single_step_the_time_left_is_that_of_the_run():
    events = [(0, "start", [2]), (0, "step_started", 0, 1, ("a",), 2), (PERIOD, "updated", 0, 1, 0.5, 6)]
    assert logged(TextLog, events)[0].endswith("  2 min 0 s left in this step")


def test_the_json_log_has_the_same_as_objects():
    written = [json.loads(line) for line in logged(JsonLog, [*LONG_EPOCH, (0, "step_finished", 0, FIGURES)])]
    assert [line["kind"] for line in written] == ["run_started", "step_started", "update", "step"]
    assert written[0] == {"kind": "run_started", "seconds": 0.0, "updates": [4, 8]}
    assert written[2] == {
        "kind": "update", "seconds": PERIOD, "step": 0, "epoch": 0, "epochs": 2, "loss": 0.25, "images_per_second": 0.1,
        "seconds_left_in_step": PERIOD, "seconds_left_in_run": 5 * PERIOD,
    }  # fmt: skip
    assert written[3]["metrics"] == {"old": 0.5, "new": None, "all": 0.25, "notes": {}}


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


class TestTrainWithJson:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("json") / "run"
        code, out, _ = command(
            "train", "digits/finetune_5-1", *SHORT, "--out", folder, "--no-cache", "--log", "json", "training.precision=amp"
        )
        assert code == 0
        return Run(folder), objects(out)

    def test_writes_nothing_but_objects_with_a_kind(self, run):
        kinds = [line["kind"] for line in run[1] if line["kind"] != "message"]
        step = ["step_started", "epoch", "epoch", "step"]
        assert kinds == ["run_started", *step, *step, "finished"]

    def test_has_the_losses_and_metrics_of_the_run(self, run):
        folder, written = run
        for kind, keys in (("epoch", ("step", "epoch", "loss", "images_per_second")), ("step", ("step",))):
            saved = [line for line in folder.metrics() if line["kind"] == kind]
            found = [line for line in written if line["kind"] == kind]
            assert [[line[key] for key in keys] for line in found] == [[line[key] for key in keys] for line in saved]
        assert found[-1]["metrics"]["all"] == saved[-1]["all"]
        assert written[-1]["metrics"] == folder.summary()

    def test_has_the_remarks_as_messages(self, run):
        assert any("training.precision" in line["text"] for line in run[1] if line["kind"] == "message")


@pytest.mark.parametrize(
    ("mistake", "named"),
    [(["digits/plop_5"], "digits/plop_5"), (["digits/plop_5-1", "training.lr=-1"], "training.lr")],
    ids=["recipe", "key"],
)
def test_an_error_is_the_last_object_and_still_a_line_on_standard_error(tmp_path, mistake, named):
    code, out, errors = command("train", *mistake, "--out", tmp_path / "run", "--log", "json")
    [error] = objects(out)
    assert (code, error["kind"], error["exit_code"]) == (2, "error", 2)
    assert named in error["message"]
    assert errors == f"error: {error['message']}\n"


@pytest.mark.parametrize(
    ("raised", "content"),
    [
        (Interrupted(15, "contseg train --resume r"),
         {"kind": "interrupted", "message": "Interrupted. Resume with: contseg train --resume r",
          "resume": "contseg train --resume r", "exit_code": 143}),
        (KeyError("x"), {"kind": "error", "message": "KeyError: 'x'", "exit_code": 1}),
        (OSError(28, "No space left on device", "a"), {"kind": "error", "exit_code": 2}),
        (MemoryError(), {"kind": "error", "exit_code": 2}),
    ],
    ids=["signal", "fault", "disk", "memory"],
)  # fmt: skip
def test_whatever_ends_a_training_is_the_last_object(raised, content):
    out = io.StringIO()

    def train():
        print_line("a table")
        raise raised

    with redirect_stdout(out), pytest.raises(type(raised)), json_log():
        train()
    [written] = objects(out.getvalue())
    assert content.items() <= written.items()


def test_the_worker_of_a_sweep_writes_the_same_lines(tmp_path, capsys):
    folder = start_run(tiny_recipe("finetune"), tmp_path / "run").folder
    work(folder, tmp_path / "cache")
    written = re.findall(
        r"^step \d/1 \(.*\): epoch \d/1  loss .* left in this step, .* in the run$", capsys.readouterr().out, re.M
    )
    assert len(written) == 4


@pytest.mark.slow
def test_of_two_ranks_only_one_writes(tmp_path):
    """Rank 0 is a process of its own there."""
    done = subprocess.run(
        [sys.executable, "-m", "contseg", "train", "digits/finetune_5-1", *SHORT, "training.devices=2", "--no-cache",
         "training.accelerator=cpu", "--log", "json", "--out", str(tmp_path / "run")],
        env=os.environ, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line["kind"] for line in objects(done.stdout)].count("epoch") == 4
    assert objects(done.stdout)[-1]["kind"] == "finished"

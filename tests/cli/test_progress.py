"""What training prints on the terminal and into a log."""

import os
import re
import subprocess
import sys

import pytest

from contseg.cli import progress
from contseg.cli.console import PlainConsole, console
from contseg.cli.progress import TerminalReporter
from contseg.engine.job import Reporter
from tests.conftest import TINY
from tests.engine.runs import command, learn, lines, tiny_recipe

ONE_UPDATE = [*TINY, "data.options={train: 10, test: 2, size: 32}", "scenario.split=5-5", "training.batch=10"]


def test_a_message_is_one_line_in_a_log_under_the_name_of_its_run_and_word_for_word():
    text = "background fell by more than half: " + "65% of it is predicted as '[red]cat'; " * 5
    with console.capture() as capture:
        TerminalReporter("plop").message(text)
    assert capture.get() == f"plop {text}\n"


class Losses(Reporter):
    """Keeps what is shown with every update, and with every epoch."""

    def __init__(self):
        self.shown, self.epochs = [], []

    def updated(self, epoch, epochs, loss, images):
        self.shown.append(loss)

    def epoch_finished(self, epoch, epochs, loss, images_per_second):
        self.epochs.append((epoch, epochs, loss))


@pytest.mark.parametrize("batch", [5, 10], ids=["two updates an epoch", "one update an epoch"])
def test_every_update_has_a_loss_to_show(tmp_path, batch):
    seen = Losses()
    recipe = tiny_recipe(
        "finetune", "data.options={train: 10, test: 2, size: 32}", "scenario.split=offline", f"training.batch={batch}"
    )
    run = learn(tmp_path / "run", recipe, reporter=seen)
    assert len(seen.shown) == 2 * 10 // batch
    assert all(loss == loss for loss in seen.shown)  # not a number is not itself
    means = [line["loss"] for line in lines(run, "epoch")]
    assert seen.epochs == [(epoch, 2, mean) for epoch, mean in enumerate(means)]
    if batch == 10:
        assert seen.shown == pytest.approx(means)


class TestALogFile:
    @pytest.fixture(scope="class")
    def log(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("log") / "run"
        code, out, _ = command("train", "digits/finetune_5-1", *ONE_UPDATE, "--out", folder, "--no-cache")
        assert code == 0
        return out.splitlines()

    def test_has_no_empty_line_of_a_progress_bar(self, log):
        assert "" not in log

    def test_has_a_line_for_every_epoch_as_it_ends(self, log):
        what = r"loss \d+\.\d{3}  \d+\.\d images/s  \d+ s left in this step, \d+ s in the run"
        found = [line for line in log if re.search(what, line)]
        assert [re.sub(r" \(.*?\): ", ": ", line.partition("  ")[0]) for line in found] == [
            f"step {step}/1: epoch {epoch}/1" for step in (0, 1) for epoch in (0, 1)
        ]
        assert re.search(" 0 s left in this step, [0-9]+ s in the run$", found[1])
        assert found[3].endswith(" 0 s left in this step, 0 s in the run")

    def test_counts_steps_from_0_as_all_files_do(self, log):
        done = [line for line in log if ": old " in line]
        assert [line.partition(" (")[0] for line in done] == ["step 0/1", "step 1/1"]


def test_on_a_terminal_the_bar_is_enough(monkeypatch):
    monkeypatch.setattr(type(console), "is_terminal", True)
    with console.capture() as capture:
        TerminalReporter().epoch_finished(0, 2, 1.0, 10.0)
    assert capture.get() == ""


def test_a_step_that_is_taken_over_names_its_origin_in_its_line():
    with console.capture() as capture:
        TerminalReporter().step_started(0, 2, ("a",), 0, "from X")
    assert capture.get() == "step 0/1 (a): from X\n"


class Broken:
    """A log on a full disk, or a pipe that nobody reads."""

    encoding = "utf-8"

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error

    def isatty(self):
        return False

    def fileno(self):
        raise OSError("none")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe")], ids=str)
def test_printing_never_ends_a_training(monkeypatch, error):
    monkeypatch.setattr(progress, "console", PlainConsole(file=Broken(error)))
    TerminalReporter().message("lost")


def test_a_class_name_that_a_log_cannot_hold_is_written_as_codes(tmp_path, make_folder):
    """As where output is redirected on Windows."""
    root = make_folder(8, ("background", "道路", "樹木"))
    tiny = [option for option in TINY if not option.startswith("data.options")]
    done = subprocess.run(
        [sys.executable, "-m", "contseg", "train", "folder/finetune", "--data", str(root), *tiny, "scenario.split=1-1",
         "training.batch=2", "training.epochs=1", "--out", str(tmp_path / "run"), "--no-cache"],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"step 1/1 (\\u6a39\\u6728): old" in done.stdout

"""A run that was stopped and goes on ends as if it had never stopped."""

import shutil
import subprocess
import sys

import pytest
import torch

from contseg.engine.job import Reporter
from contseg.engine.run import Run
from contseg.engine.step_state import StepState
from contseg.errors import ContsegError
from tests.engine.runs import Watching, interrupted, job_in, learn, lines, same, tiny_recipe, weights

RECIPE = tiny_recipe("plop")  # with state: the thresholds of a step


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stops: two steps of two epochs of four updates."""
    return learn(tmp_path_factory.mktemp("whole") / "run", RECIPE)


def assert_like(run: Run, whole: Run) -> None:
    assert lines(run) == lines(whole)
    for step in (0, 1):
        assert same(weights(run, step), weights(whole, step)), f"step {step}"
        assert same(run.load_state(step).method, whole.load_state(step).method)
    assert {**run.summary(), "seconds": 0} == {**whole.summary(), "seconds": 0}
    names = {path.relative_to(run.folder) for path in run.folder.rglob("*") if "tensorboard" not in path.parts}
    assert names == {path.relative_to(whole.folder) for path in whole.folder.rglob("*") if "tensorboard" not in path.parts}


@pytest.mark.parametrize(
    ("event", "count"),
    [
        pytest.param("updated", 2, id="in the first epoch"),
        pytest.param("updated", 4, id="before the first state is saved"),
        pytest.param("updated", 6, id="in the second epoch"),
        pytest.param("evaluated", 1, id="while step 0 is tested"),
        pytest.param("step_finished", 1, id="between the steps"),
        pytest.param("updated", 10, id="in the first epoch of step 1"),
        pytest.param("updated", 15, id="in the second epoch of step 1"),
        pytest.param("step_finished", 2, id="before the summary is written"),
    ],
)
def test_wherever_it_was_stopped(whole, tmp_path, event, count):
    interrupted(tmp_path / "run", RECIPE, event, count)
    assert_like(learn(tmp_path / "run", RECIPE), whole)


def test_however_often_it_was_stopped(whole, tmp_path):
    for event, count in (("updated", 2), ("updated", 5), ("evaluated", 3), ("updated", 3), ("updated", 5)):
        interrupted(tmp_path / "run", RECIPE, event, count)
    assert_like(learn(tmp_path / "run", RECIPE), whole)


@pytest.mark.parametrize(
    ("method", "variant", "moved"),
    [
        ("sdr", "paper", "counts"),
        ("sdr", "released", "counts"),
        ("idec", "paper", "confidences"),
        ("lag", "paper", "pixels"),
        ("dkd", "paper", None),
        ("mbs", "paper", None),
        ("barm", "paper", None),
        ("barm", "released", None),
        ("star", "paper", "numbers"),
        ("star", "released", "numbers"),
        ("adapter", "paper", "current"),
        ("reminder", "paper", "prototypes"),
        ("reminder", "released", "prototypes"),
    ],
)
def test_with_a_state_that_every_batch_moves(tmp_path, method, variant, moved):
    recipe = tiny_recipe(method, f"method.variant={variant}")
    whole = learn(tmp_path / "whole", recipe)
    assert moved is None or whole.load_state(1).method[moved][1:].any()
    for event, count in (("updated", 6), ("step_finished", 1), ("updated", 7)):
        interrupted(tmp_path / "run", recipe, event, count)
    assert_like(learn(tmp_path / "run", recipe), whole)


def test_what_was_learned_is_not_learned_again(tmp_path):
    interrupted(tmp_path / "run", RECIPE, "updated", 14)  # in the second epoch of step 1
    watching = Watching()
    learn(tmp_path / "run", RECIPE, reporter=watching)
    assert watching.updates == [4]


def test_a_finished_run_stays_as_it_is(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    watching = Watching()
    run = learn(tmp_path / "run", RECIPE, reporter=watching)
    assert watching.updates == []
    assert_like(run, whole)


def test_halves_of_a_line_and_of_a_file_are_forgotten(whole, tmp_path):
    """What a kill in the middle of writing leaves: a torn metrics line, a partial file beside the good one."""
    interrupted(tmp_path / "run", RECIPE, "updated", 6)
    run = Run(tmp_path / "run")
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "step": 0, "epo')
    (run.folder / "steps" / "00" / "state.pt.contseg-partial").write_bytes(b"half")
    assert_like(learn(run.folder, RECIPE), whole)


def test_with_a_damaged_last_state_the_step_is_trained_again(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    path = tmp_path / "run" / "steps" / "01" / "state.pt"
    path.write_bytes(path.read_bytes()[:100])
    watching = Watching()
    assert_like(learn(tmp_path / "run", RECIPE, reporter=watching), whole)
    assert watching.updates == [8]


def test_states_hold_no_code(whole):
    """They load with `weights_only`, as everything that a run reads back."""
    for path in whole.folder.rglob("state.pt"):
        torch.load(path, weights_only=True)


def test_a_job_does_not_touch_its_folder(tmp_path):
    job_in(tmp_path / "run", RECIPE)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.yaml", "manifest.json"}


def test_a_finished_run_has_nothing_left_to_train(tmp_path):
    recipe, messages = tiny_recipe("finetune", "training.epochs=1", "scenario.split=offline"), []

    class Listening(Reporter):
        def message(self, text):
            messages.append(text)

    learn(tmp_path / "run", recipe, reporter=Listening())
    assert not any("nothing is left to train" in text for text in messages)
    learn(tmp_path / "run", recipe, reporter=Listening())
    assert "all 1 steps are finished; nothing is left to train" in messages


def test_that_it_is_finished_is_said_before_anything_is_imported_that_trains_or_draws(tmp_path):
    learn(tmp_path / "run", tiny_recipe("finetune", "training.epochs=1", "scenario.split=offline"))
    program = f"""
import sys
from contseg.cli import main, progress

def said(self, text):
    if "nothing is left to train" in text:
        print(*({{"lightning_fabric", "matplotlib", "torch._dynamo"}} & sys.modules.keys()), "said", file=sys.stderr)

progress.TerminalReporter.message = said
sys.argv[1:] = ["train", "--resume", {str(tmp_path / "run")!r}]
main.main()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stderr.strip()) == (0, "said")


def test_a_state_of_an_earlier_version_is_read(tmp_path):
    """It has no scaler, and only the keys of its shape."""
    run = Run(tmp_path)
    torch.save({"finished": True, "seconds": 2.0, "method": {}, "metrics_bytes": 7}, run.step_folder(0) / "state.pt")
    assert run.load_state(0) == StepState(finished=True, seconds=2.0, method={}, metrics_bytes=7)


def test_a_state_of_another_kind_is_an_error_that_names_the_key(tmp_path):
    run = Run(tmp_path)
    torch.save({"finished": True, "seconds": 2.0, "method": {}, "other": 7}, run.step_folder(0) / "state.pt")
    with pytest.raises(ContsegError, match=r"state\.pt: cannot be read \(.*'other'\); delete it to repeat step 0"):
        run.load_state(0)

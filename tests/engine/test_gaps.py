"""A file that is lost in the middle of a run is a gap, not the end of the run: it is named, and made again."""

import shutil

import numpy as np
import pytest

from contseg.engine.run import Run
from contseg.errors import ContsegError
from tests.engine.runs import Watching, command, learn, lines, tiny_recipe, weights

RECIPE = tiny_recipe("finetune", "training.epochs=1", "training.batch=20")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", RECIPE)


@pytest.fixture
def run(whole, tmp_path):
    return Run(shutil.copytree(whole.folder, tmp_path / "run"))


def lose(path):
    path.unlink()


def halve(path):
    path.write_bytes(path.read_bytes()[:40])


def flip(path):
    """One bit of what is compressed."""
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [lose, halve, flip], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("name", ["confusion.npz", "predictions.npz"])
def test_a_resume_makes_it_again_from_the_segmenter(run, whole, step, name, harm):
    harm(run.folder / "steps" / f"0{step}" / name)
    (run.folder / "summary.json").unlink()
    watching = Watching()
    learn(run.folder, RECIPE, reporter=watching)
    assert watching.updates == [], "nothing is trained again"
    for made, kept in zip(run.confusions(), whole.confusions(), strict=True):
        assert np.array_equal(made, kept)
    made, kept = (each.arrays(f"steps/0{step}/predictions.npz") for each in (run, whole))
    assert made.keys() == kept.keys()
    assert all(np.array_equal(made[key], kept[key]) for key in kept if key.startswith("prediction"))
    # maps of doubt are rounded from floats, which depend on where the weights are in memory
    assert all(np.abs(made[key].astype(int) - kept[key]).max() <= 1 for key in kept)
    assert {**run.summary(), "seconds": 0} == {**whole.summary(), "seconds": 0}
    assert lines(run) == lines(whole)


@pytest.mark.parametrize("harm", [lose, halve], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("summary", [True, False], ids=["with summary", "without summary"])
@pytest.mark.parametrize("words", [["report"], ["table"], ["evaluate"]], ids=lambda words: words[0])
def test_whoever_needs_it_names_it_and_the_way_to_make_it_again(run, words, step, harm, summary):
    harm(run.folder / "steps" / f"0{step}" / "confusion.npz")
    if not summary:
        (run.folder / "summary.json").unlink()
    code, _, errors = command(*words, run.folder)
    problem = "missing" if harm is lose else "damaged"
    path = run.folder / "steps" / f"0{step}" / "confusion.npz"
    assert (code, errors) == (
        2,
        f"error: {path}: is {problem}; make it again with: contseg train --resume {run.folder}\n",
    )


@pytest.mark.parametrize("word", ["report", "table"])
def test_without_its_plan_a_run_is_not_reported_and_half_of_one_not_put_into_a_table(run, word):
    for name in ("plan.json", "summary.json"):  # a finished run has its figures in the latter
        (run.folder / name).unlink()
    code, _, errors = command(word, run.folder)
    path = run.folder / "plan.json"
    assert (code, errors) == (2, f"error: {path}: is missing; make it again with: contseg train --resume {run.folder}\n")
    learn(run.folder, RECIPE)
    (run.folder / "summary.json").unlink()
    path.write_text(path.read_text()[:30])
    code, _, errors = command(word, run.folder)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"{path}: damaged: its SHA-256 is not the one that was written" in errors


@pytest.mark.parametrize("name", ["samples.npz", "steps/01/predictions.npz"])
def test_a_report_names_what_else_it_needs(run, name):
    (run.folder / name).unlink()
    code, _, errors = command("report", run.folder)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"{name}: is missing; make it again with" in errors


def test_without_its_segmenter_a_step_cannot_be_measured_again(run):
    for name in ("confusion.npz", "segmenter.safetensors"):
        (run.folder / "steps" / "00" / name).unlink()
    with pytest.raises(ContsegError, match=r"steps/00/segmenter.safetensors: not found, but .* must be computed from it"):
        learn(run.folder, RECIPE)


@pytest.mark.parametrize("harm", [lose, halve], ids=lambda harm: harm.__name__)
def test_the_state_of_a_step_that_was_followed_by_another_is_not_needed(run, whole, harm):
    harm(run.folder / "steps" / "00" / "state.pt")
    watching = Watching()
    learn(run.folder, RECIPE, reporter=watching)
    assert watching.updates == []
    assert lines(run) == lines(whole)
    assert weights(run).keys() == weights(whole).keys()

"""A run with damaged files continues from its last good state, and ends as if nothing had happened."""

import shutil

import numpy as np
import pytest
import torch

from contseg.atomic import UnwritableError
from contseg.engine.overwrite import clear
from contseg.engine.recovery import recover
from contseg.engine.run import STATE, STATE_BEFORE, Run
from contseg.engine.step_state import StepState
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter
from contseg.report.page import write_report
from tests.engine.runs import Watching, command, interrupted, learn, lines, same, tiny_recipe, weights

RECIPE = tiny_recipe("plop")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    torch.save(StepState(True, 9.0, {"other": torch.zeros(3)}).to_dict(), path)


HARMS = [flip, halve, empty, foreign]


@pytest.fixture
def begun(tmp_path):
    """A run whose step 0 is finished; step 1 has states after its first and second epoch. Without networks."""
    run = Run(tmp_path / "run")
    clear(run.folder)
    for step, epochs in ((0, 2), (1, 2)):
        if step:
            finish(run, step - 1)
        for epoch in range(epochs):
            run.append_metrics({"kind": "epoch", "step": step, "epoch": epoch})
            run.save_state(step, StepState(False, 1.0, {"sum": torch.rand(9)}, epochs_done=epoch + 1))
    return run


def finish(run, step):
    with run.manifest.writing(run.step_folder(step) / "segmenter.safetensors") as partial:
        partial.write_bytes(bytes(range(100)))
    run.save_state(step, StepState(True, 2.0, {}))


def test_a_sound_run_is_left_alone(begun):
    before = {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()}
    assert recover(begun) == []
    assert {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()} == before


def test_the_state_before_is_kept_until_the_step_is_finished(begun):
    assert begun.load_state(1).epochs_done == 2
    assert begun.load_state(1, STATE_BEFORE).epochs_done == 1
    finish(begun, 1)
    assert not begun.state_path(1, STATE_BEFORE).exists()
    assert not begun.state_path(0, STATE_BEFORE).exists()


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_damaged_state_is_named_and_the_one_before_is_used(begun, harm):
    path = begun.state_path(1)
    harm(path)
    with pytest.raises(ContsegError, match=r"state\.pt: damaged.* resume the run from an earlier state with"):
        begun.load_state(1)
    assert recover(begun) == [
        f"{path}: damaged: its SHA-256 is not the one that was written",
        "continuing after 1 epoch of step 1",
    ]
    assert begun.load_state(1).epochs_done == 1
    begun.rewind_metrics(begun.load_state(1))
    assert [(line["step"], line["epoch"]) for line in begun.metrics()] == [(0, 0), (0, 1), (1, 0)]
    assert recover(begun) == []


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_with_both_states_damaged_the_step_begins_again(begun, harm):
    for name in (STATE, STATE_BEFORE):
        harm(begun.state_path(1, name))
    assert recover(begun)[-1] == "continuing after step 0"
    assert begun.last_begun() == 0
    assert begun.load_state(0).finished


@pytest.mark.parametrize("harm", [*HARMS, lambda path: path.unlink()], ids=[*(h.__name__ for h in HARMS), "lose"])
def test_without_the_segmenter_before_it_a_step_cannot_continue(begun, harm):
    harm(begun.segmenter_path(0))
    found = recover(begun)
    assert str(begun.segmenter_path(0)) in found[0]
    assert found[-1] == "continuing from the start of step 0"
    assert begun.last_begun() == -1


def test_a_kill_between_the_two_renames_leaves_the_state_before(begun):
    begun.state_path(1).unlink()
    assert recover(begun) == []
    assert begun.load_state(1).epochs_done == 1


def test_a_damaged_manifest_deletes_nothing(begun):
    flip(begun.manifest.path)
    with pytest.raises(ContsegError, match=r"manifest\.json: damaged, or of another program; restore it"):
        recover(begun)
    assert begun.state_path(1).is_file()


@pytest.mark.parametrize("exchanged", ["manifest.json", "steps"])
def test_good_states_beside_files_of_another_run_are_kept(begun, tmp_path, exchanged):
    other = Run(tmp_path / "other")
    shutil.copytree(begun.folder, other.folder)
    finish(other, 1)
    for path in other.folder.rglob("*.*"):
        if path.parent.parent.name == "steps":
            path.write_bytes(path.read_bytes() + b"\0")
            other.manifest.record(path)
    place = begun.folder / exchanged
    place.rename(tmp_path / "own")
    (other.folder / exchanged).rename(place)
    before = {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()}
    with pytest.raises(ContsegError, match=r"manifest\.json: fits none of the \d segmenters and states in steps/, so"):
        recover(begun)
    assert {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()} == before


def test_steps_that_were_deleted_are_named(begun):
    finish(begun, 1)
    for step in (1, 0):
        begun.save_arrays(f"steps/{step:02d}/confusion.npz", confusion=np.eye(3))
    for step, place in ((1, "after step 0"), (0, "from the start of step 0")):
        shutil.rmtree(begun.folder / "steps" / f"{step:02d}")
        assert recover(begun) == [
            f"{begun.state_path(step)}: missing, although the step is finished",
            f"continuing {place}",
        ]


@pytest.mark.parametrize("name", ["state.pt", "confusion.npz"])
def test_a_step_that_the_plan_lacks_is_named_and_kept(begun, name):
    begun.write_text("plan.json", '{"steps": [1, 2]}')
    path = begun.folder / "steps" / "02" / name
    path.parent.mkdir()
    path.write_bytes(b"mine")
    for read in (recover, Run.finished_steps):
        if (read, name) != (Run.finished_steps, "state.pt"):
            with pytest.raises(
                ContsegError, match=r"steps/02: is not of this run, whose plan has 2 steps; move what is there"
            ):
                read(begun)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["²", "x"])
def test_other_folders_beside_steps_are_ignored(begun, name):
    (begun.folder / "steps" / name).mkdir()
    for file in ("state.pt", "confusion.npz"):
        (begun.folder / "steps" / name / file).write_bytes(b"mine")
    assert (begun.last_begun(), begun.finished_steps(), recover(begun)) == (1, 0, [])


def test_a_folder_in_place_of_a_state_is_no_state(begun):
    begun.state_path(1).unlink()
    begun.state_path(1, STATE_BEFORE).unlink()
    begun.state_path(1).mkdir()
    assert (begun.last_begun(), begun.load_state(1)) == (0, None)


@pytest.mark.parametrize("cut", [0, 1, 30, 60])
def test_metrics_that_are_cut_off_are_restored(begun, cut):
    path = begun.folder / "metrics.jsonl"
    before = path.read_bytes()
    path.write_bytes(before[:cut])
    begun.rewind_metrics(begun.load_state(1))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"\0" * 40, b"\xff\xfe{", b'{"kind": "ep\n', b'{"a": 1}\n[]\n', b"[" * 99_999])
def test_damaged_metrics_are_named_and_restored(begun, content):
    path = begun.folder / "metrics.jsonl"
    before = path.read_bytes()
    path.write_bytes(content + b"\n" + before)
    with pytest.raises(ContsegError, match=r"metrics\.jsonl: line \d is damaged; repair it with: contseg train --resume"):
        begun.metrics()
    begun.rewind_metrics(begun.load_state(1))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("length", "kept"), [(10**6, 2), (40, 1), (20, 1), (5, 0)])
def test_metrics_of_an_earlier_version_are_cut_to_the_last_whole_line_and_never_extended(tmp_path, length, kept):
    run = Run(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 0, "a": 1}'[:-1] + b"}\n" + b'{"epoch": 1, "a": 1}\n')
    run.rewind_metrics(StepState(False, 1.0, {}, metrics_bytes=length + (length == 20)))
    assert [line["epoch"] for line in run.metrics()] == list(range(kept))
    assert b"\0" not in path.read_bytes()


@pytest.mark.parametrize("name", ["plan.json", "summary.json"])
@pytest.mark.parametrize("harm", [flip, halve, empty], ids=lambda harm: harm.__name__)
def test_a_damaged_file_of_json_is_one_line(tmp_path, name, harm):
    run = Run(tmp_path)
    run.write_text(name, '{"hash": "1234", "steps": 2}')
    harm(tmp_path / name)
    with pytest.raises(ContsegError, match=rf"{name}: damaged: its SHA-256"):
        run.plan() if name == "plan.json" else run.summary()


def digit(path):
    path.write_text(path.read_text().replace("1", "2", 1))


@pytest.mark.parametrize("name", ["metrics.jsonl", "environment.json", "inputs.json", "recipe.yaml", "plan.json"])
@pytest.mark.parametrize("harm", [digit, flip, empty], ids=lambda harm: harm.__name__)
def test_a_report_names_the_damaged_file_of_a_finished_run(whole, tmp_path, name, harm):
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    harm(run.folder / name)
    with pytest.raises(ContsegError, match=rf"{name}: damaged: its SHA-256 is not the one that was written; "):
        write_report(run.folder, tmp_path / "report.html")


@pytest.mark.parametrize(
    ("name", "harm"),
    [("metrics.jsonl", digit), ("summary.json", empty), ("environment.json", halve)],
    ids=["metrics", "summary", "environment"],
)
def test_a_resume_makes_a_damaged_file_of_a_finished_run_again(whole, tmp_path, name, harm):
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    harm(run.folder / name)
    assert_like(learn(run.folder, RECIPE), whole)
    kept = {} if name == "environment.json" else {"date"}  # a damaged one is of the day of its repair
    assert run.environment().items() - whole.environment().items() <= {("date", run.environment()["date"])}
    assert all(run.environment()[key] == whole.environment()[key] for key in kept)


def test_metrics_may_grow_again_after_the_end_of_a_run_was_lost(whole, tmp_path):
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    run.rewind_metrics(None)
    run.append_metrics({"kind": "epoch"})
    assert run.metrics() == [{"kind": "epoch"}]


def test_an_edited_recipe_is_refused_until_a_resume_has_compared_it(whole, tmp_path):
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    path = run.folder / "recipe.yaml"
    path.write_text(path.read_text().replace("note: ''", "note: mine"))
    shows = ("report", "evaluate", "table")
    for word in shows:
        code, _, errors = command(word, run.folder)
        assert (code, errors.count("\n")) == (2, 1)
        assert f"{path}: damaged: its SHA-256 is not the one that was written; see what changed with: contseg" in errors
    code, printed, _ = command("train", "--resume", run.folder, "--no-cache")
    assert (code, f"{path}: is not the file that this run wrote; it is kept as it is" in printed) == (0, True)
    assert [command(word, run.folder)[0] for word in shows] == [0, 0, 0]
    assert "note: mine" in path.read_text()


@pytest.mark.parametrize("harm", [flip, halve, empty], ids=lambda harm: harm.__name__)
def test_arrays_are_checked_when_they_are_read(tmp_path, harm):
    run = Run(tmp_path)
    run.save_arrays("steps/00/confusion.npz", confusion=np.eye(3))
    harm(tmp_path / "steps" / "00" / "confusion.npz")
    assert not run.is_readable("steps/00/confusion.npz")
    with pytest.raises(ContsegError, match=r"confusion\.npz: is damaged; make it again with"):
        run.confusion(0)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("steps/01/confusion.npz", "steps/00/confusion.npz"),
        ("steps/00/confusion.npz", "steps/01/confusion.npz"),
        ("steps/01/confusion.npz", "samples.npz"),
        ("steps/01/predictions.npz", "samples.npz"),
        ("samples.npz", "steps/01/confusion.npz"),
    ],
)
def test_arrays_of_another_place_are_named_and_made_again_without_a_manifest(whole, tmp_path, name, source):
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    run.manifest.path.unlink()
    shutil.copyfile(whole.folder / source, run.folder / name)
    with pytest.raises(ContsegError, match=rf"{name}: is damaged; make it again with: contseg train --resume"):
        write_report(run.folder, tmp_path / "report.html")
    watching = Watching()
    assert_like(learn(run.folder, RECIPE, reporter=watching), whole)
    assert any("manifest.json missing" in text for text in watching.messages)
    assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert "manifest.json was missing" in write_report(run.folder, tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "[1]"),
        ("plan.json", "[1]"),
        ("plan.json", "{}"),
        ("plan.json", '{"steps": ["a", "b"], "warnings": []}'),
        ("inputs.json", "[]"),
        ("inputs.json", '{"accepted": 3}'),
        ("inputs.json", '{"accepted": ["x"]}'),
    ],
)
def test_json_of_another_kind_is_one_line_without_a_manifest(whole, tmp_path, name, content):
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    run.manifest.path.unlink()
    (run.folder / name).write_text(content)
    with pytest.raises(ContsegError, match=rf"{name}: (not JSON|not a plan|is damaged)"):
        write_report(run.folder, tmp_path / "report.html")


def test_a_matrix_is_missed_even_if_nothing_else_is_left_of_its_step(tmp_path):
    run = Run(tmp_path)
    for step in (0, 1):
        run.save_arrays(f"steps/{step:02d}/confusion.npz", confusion=np.eye(3))
    (tmp_path / "steps" / "01" / "confusion.npz").unlink()
    assert run.finished_steps() == 2
    with pytest.raises(ContsegError, match=r"01/confusion\.npz: is missing; make it again with: contseg train --resume"):
        run.confusions()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", RECIPE)


def assert_like(run, whole):
    assert lines(run) == lines(whole)
    for step in (0, 1):
        assert same(weights(run, step), weights(whole, step))
    assert {**run.summary(), "seconds": 0} == {**whole.summary(), "seconds": 0}


def test_a_damaged_segmenter_is_named_by_whatever_reads_it(whole, tmp_path):
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    flip(run.segmenter_path(1))
    with pytest.raises(ContsegError, match=r"segmenter\.safetensors: damaged: its SHA-256"):
        load_segmenter(run.segmenter_path(1))
    watching = Watching()
    assert_like(learn(run.folder, RECIPE, reporter=watching), whole)
    assert watching.updates == [8]
    assert "continuing after step 0" in watching.messages


def test_a_run_that_lost_its_last_epoch_ends_the_same(whole, tmp_path):
    interrupted(tmp_path / "run", RECIPE, "evaluated", 8)  # in the test of step 1, which comes after six images in step 0
    run = Run(tmp_path / "run")
    flip(run.state_path(1))
    halve(run.folder / "metrics.jsonl")
    watching = Watching()
    assert_like(learn(run.folder, RECIPE, reporter=watching), whole)
    assert watching.updates == [4]


def test_a_write_that_the_disk_refuses_is_one_line_and_the_state_before_stays(begun, largest_file):
    before = {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()}
    largest_file(3000)
    big = {"sum": torch.rand(10_000)}
    writes = [
        lambda: begun.save_state(1, StepState(False, 1.0, big, epochs_done=3)),
        lambda: begun.save_arrays("samples.npz", image=np.random.default_rng(0).random(10_000)),
        lambda: begun.write_text("report.html", "a" * 10_000),
        lambda: begun.append_metrics({"note": "a" * 10_000}),
    ]
    for write in writes:
        with pytest.raises(
            UnwritableError, match=r": cannot be written \(.*at least .* needed, .* free\); free some"
        ) as caught:
            write()
        assert str(caught.value).startswith(str(begun.folder))
        assert "\n" not in str(caught.value)
    begun.rewind_metrics(begun.load_state(1))
    assert {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()} == before

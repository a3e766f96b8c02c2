"""`contseg sweep`: recipes x settings x seeds in one command."""

import json
import shlex

import pytest

from contseg.cli import sweep
from contseg.cli.sweep import chosen_seeds, rows_of, values_of
from contseg.engine.overwrite import clear
from contseg.engine.run import INPUTS, Run
from contseg.errors import ContsegError
from contseg.interruption import Interrupted
from contseg.sweeps.runs import LOG, begin, cells_of
from tests.conftest import TINY
from tests.engine.runs import command, interrupted

SMALL = [*TINY, "training.epochs=1", "training.batch=10"]


def test_every_combination_of_recipe_and_settings_is_a_row_with_a_folder_of_its_own():
    rows = rows_of(["digits/mib_5-1", "digits/plop_5-1"], ["training.lr=0.1,0.2", "data.flip=0"], (0,))
    assert {name: row.overrides for name, row in rows.items()} == {
        "digits-mib_5-1,training.lr=0.1,data.flip=0": ("training.lr=0.1", "data.flip=0"),
        "digits-mib_5-1,training.lr=0.2,data.flip=0": ("training.lr=0.2", "data.flip=0"),
        "digits-plop_5-1,training.lr=0.1,data.flip=0": ("training.lr=0.1", "data.flip=0"),
        "digits-plop_5-1,training.lr=0.2,data.flip=0": ("training.lr=0.2", "data.flip=0"),
    }


@pytest.mark.parametrize("setting", ["training.lr", "training.lr=", "=0.1", "training.lr=[0.1"])
def test_a_setting_that_lists_no_values_is_an_error(setting):
    with pytest.raises(ContsegError, match=r"--set: .* expected KEY=VALUE,VALUE"):
        values_of(setting)


def test_a_recipe_that_is_there_twice_is_an_error():
    with pytest.raises(ContsegError, match="is listed twice"):
        rows_of(["digits/mib_5-1", "digits/mib_5-1"], [], (0,))


@pytest.mark.parametrize("seeds", ["", "0,one", "-1"])
def test_seeds_are_whole_numbers(seeds):
    with pytest.raises(ContsegError, match="--seeds: expected whole numbers"):
        chosen_seeds(seeds)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["training.lr=0.1"], "sweep: name at least one recipe"),
        (["digits/mob_5-1"], "recipe 'digits/mob_5-1': not found; did you mean 'digits/mib_5-1'"),
        (["digits/mib_5-1", "--set", "training.lrr=1,2"], "training.lrr: unknown key"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(tmp_path, words, problem):
    code, _, errors = command("sweep", *words, "--out", tmp_path / "sweep")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert problem in errors
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("name", ["sweep.md", "clock.json"])
def test_a_file_of_the_user_is_kept(tmp_path, name):
    (tmp_path / name).write_text("of the user")
    code, _, errors = command("sweep", "digits/mib_5-1", *SMALL, "--out", tmp_path)
    assert (code, errors.count("\n")) == (2, 1)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of the user"]


def test_a_run_of_another_recipe_is_replaced_only_if_requested(tmp_path):
    row = rows_of(["digits/mib_5-1"], [], (0,))
    (cell,) = cells_of(row, SMALL, tmp_path)
    begin(cell)
    (cell.run.step_folder(0) / "state.pt").touch()
    cell.run.manifest.record(cell.run.state_path(0))
    code, _, errors = command("sweep", "digits/mib_5-1", "--seeds", "0", *SMALL, "training.lr=0.5", "--out", tmp_path)
    assert code == 2
    assert "the recipe changed since the run began: training.lr was 0.1, is 0.5; replace it with --overwrite" in errors
    assert cell.begun


def test_the_resume_hint_and_the_page_repeat_the_whole_command_and_runs_keep_the_plugins(tmp_path, monkeypatch):
    plugin, out, trained = tmp_path / "sweep_parts.py", tmp_path / "the sweep", []
    plugin.write_text("")
    words = [
        "sweep", "digits/mib_5-1", "data.flip=0.5", "--set", "training.lr=0.1,0.2", "--set", "training.epochs=1",
        "--seeds", "3", "--workers", "2", "--plugin", str(plugin), "--out", str(out), "--overwrite",
    ]  # fmt: skip
    whole = shlex.join(["contseg", *words])

    def interrupted(*arguments):
        raise Interrupted(2)

    monkeypatch.setattr(sweep, "train_rows", interrupted)
    code, _, errors = command(*words)
    assert (code, errors) == (130, f"Interrupted. Resume with: {whole}\n")

    monkeypatch.setattr(sweep, "train_rows", lambda *arguments: trained.append(arguments) or {})
    assert command(*words)[0] == 0
    page = (out / "sweep.md").read_text(encoding="utf-8")
    assert f"| command | `{whole}` |" in page
    assert f"contseg train digits/mib_5-1 training.lr=0.1 training.epochs=1 data.flip=0.5 \"plugins=['{plugin}']\"" in page
    ((rows, overrides, _, workers, overwrite, accepted),) = trained
    assert (workers, overwrite, accepted) == (2, True, False)
    assert [(cell.recipe.plugins, cell.recipe.data.flip) for cell in cells_of(rows, overrides, out)] == [
        ([str(plugin)], 0.5)
    ] * 2


@pytest.mark.slow
def test_a_sweep_trains_what_is_missing_and_tabulates_mean_and_deviation(tmp_path):
    words = ["sweep", "digits/finetune_5-1", *SMALL, "scenario.split=offline", "--workers", "2", "--out", tmp_path]
    assert command(*words, "--seeds", "0")[0] == 0
    first = Run(tmp_path / "digits-finetune_5-1" / "0")
    before = first.metrics()
    code, out, errors = command(*words, "--seeds", "0,1")
    assert (code, errors) == (0, "")
    assert first.metrics() == before
    assert "±" in out
    assert "2 of 2 finished, seeds 0, 1" in (tmp_path / "sweep.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_that_began_with_other_code_is_resumed_if_accepted_and_marked(tmp_path):
    options = [*SMALL, "scenario.split=5-5"]
    (cell,) = cells_of(rows_of(["digits/finetune_5-1"], [], (0,)), options, tmp_path)
    interrupted(cell.folder, cell.recipe, "step_finished", 1)
    inputs = cell.folder / INPUTS
    cell.run.write_text(INPUTS, json.dumps(json.loads(inputs.read_text()) | {"code": "0123456789ab"}))
    words = ["sweep", "digits/finetune_5-1", *options, "--seeds", "0", "--out", tmp_path]
    code, said, errors = command(*words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "the code was 0123456789ab, is " in said
    assert "--accept-changes" in said
    code, said, errors = command(*words, "--accept-changes")
    assert (code, errors) == (0, "")
    mark = "digits-finetune_5-1 (0): resumed in step 1 with changes: the code was 0123456789ab, is "
    assert f"warning: {mark}" in said
    assert f"**Warning**: {mark}" in (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert (cell.folder / LOG).is_file()
    clear(cell.folder, overwrite=True)  # the files of the process of the run are its own, too
    assert [path.name for path in cell.folder.iterdir()] == ["manifest.json"]

"""`contseg sweep`: the product of recipes, values, seeds and class orders in one command."""

import json
import os
import shlex
import time

import pytest

from contseg.cli import sweep as module
from contseg.cli.sweep import kinds_of, orders_or_count, seeds_or_count, settings_of, values_of
from contseg.cli.sweep_status import line_of, table_of
from contseg.engine.overwrite import clear
from contseg.engine.run import INPUTS, Run
from contseg.errors import ContsegError
from contseg.interruption import Interrupted
from contseg.lock import OF_RUN, owned
from contseg.sweeps.failures import record
from contseg.sweeps.runs import LOG, begin
from contseg.sweeps.status import statuses
from contseg.sweeps.sweep import FILE, Sweep
from tests.conftest import TINY
from tests.engine.runs import command, interrupted

SMALL = [*TINY, "training.epochs=1", "training.batch=10"]
MIB, PLOP = "digits/mib_5-1", "digits/plop_5-1"


@pytest.fixture
def untrained(monkeypatch):
    """Nothing is trained; the arguments of `train_rows` are kept."""
    given = []

    def train_rows(rows, overrides, out, ways, sweep=None):
        sweep.write(out)
        given.append((rows, ways))
        return {}

    monkeypatch.setattr(module, "train_rows", train_rows)
    return given


@pytest.mark.parametrize("setting", ["training.lr", "training.lr=", "=0.1", "training.lr=[0.1"])
def test_a_setting_that_lists_no_values_is_an_error(setting):
    with pytest.raises(ContsegError, match=r"--vary: .* expected KEY=VALUE,VALUE"):
        values_of(setting)


def test_a_key_is_varied_once():
    with pytest.raises(ContsegError, match=r"--vary: training.lr occurs twice"):
        settings_of(["training.lr=0.1", "training.lr=0.2"])


@pytest.mark.parametrize("seeds", ["", "0", "0,one", "-1", "100001", "9" * 30])
def test_seeds_are_whole_numbers_or_their_number(seeds):
    with pytest.raises(ContsegError, match="--seeds: expected"):
        seeds_or_count(seeds)


@pytest.mark.parametrize("orders", ["", "0", "-1", ","])
def test_orders_are_names_or_their_number(orders):
    with pytest.raises(ContsegError, match="--orders: expected"):
        orders_or_count(orders)


def test_only_known_references_run_next_to_the_recipes():
    with pytest.raises(ContsegError, match="--with: unknown 'joined'; did you mean 'joint'"):
        kinds_of("joint,joined")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["training.lr=0.1"], "sweep: name at least one recipe"),
        (["digits/mob_5-1"], "recipe 'digits/mob_5-1': not found; did you mean 'digits/mib_5-1'"),
        ([MIB, "--vary", "training.lrr=1,2"], "training.lrr: unknown key"),
        ([MIB, MIB], "is listed twice"),
        ([MIB, "--seeds", "1001"], "1001 runs, more than 1000; lower --seeds or --orders, or add --yes"),
        ([MIB, "--seeds", "501", "--orders", "2"], "1002 runs, more than 1000; lower --seeds or --orders, or add --yes"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(tmp_path, words, problem):
    code, _, errors = command("sweep", *words, "--out", tmp_path / "sweep")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert problem in errors
    assert not (tmp_path / "sweep").exists()


def test_more_runs_are_allowed_on_request(tmp_path, untrained):
    assert command("sweep", MIB, "--seeds", "501", "--orders", "2", "--yes", "--out", tmp_path)[0] == 0
    assert sum(len(row.runs()) for row in untrained[0][0].values()) == 1002


def test_the_description_is_written_and_repeats_the_command(tmp_path, untrained):
    out = tmp_path / "the sweep"
    words = [MIB, "data.flip=0.5", "--vary", "training.lr=0.1,0.2", "--seeds", "3,", "--orders", "2", "--with", "joint"]
    assert command("sweep", *words, "--jobs", "2", "--out", out)[0] == 0
    assert Sweep.read(out) == Sweep(
        recipes=[MIB], seeds=[3], orders=2, vary={"training.lr": [0.1, 0.2]}, beside=["joint"], overrides=["data.flip=0.5"]
    )
    for place in (out, out / FILE):
        assert command("sweep", place, "--jobs", "3")[0] == 0
    assert untrained[0][0] == untrained[1][0] == untrained[2][0]
    assert [ways.jobs for _, ways in untrained] == [2, 3, 3]


def test_a_description_has_no_options_next_to_it(tmp_path):
    Sweep(recipes=[MIB]).write(tmp_path)
    for words in (["--seeds", "2"], ["--with", "joint"], ["training.lr=1"]):
        code, _, errors = command("sweep", tmp_path, *words)
        assert code == 2
        assert f"sweep: {words[0]} cannot be added to {tmp_path}, which describes the sweep" in errors


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("empty", "empty/sweep.yaml: No such file"),
        ("missing/sweep.yaml", "missing/sweep.yaml: No such file"),
        ("other/sweep.yaml", "other/sweep.yaml: describes no sweep (recipes: is missing)"),
    ],
)
def test_a_folder_and_a_file_of_that_name_are_not_mistaken_for_recipes(tmp_path, word, problem):
    for folder in ("empty", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other" / FILE).write_text("method: {name: mib}\n")
    code, _, errors = command("sweep", tmp_path / word, "--out", tmp_path / "out")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert problem in errors


def test_a_sweep_may_grow_but_another_one_needs_another_folder(tmp_path, untrained):
    assert command("sweep", MIB, "--seeds", "2", "--out", tmp_path)[0] == 0
    assert command("sweep", MIB, PLOP, "--seeds", "3", "--orders", "2", "--out", tmp_path)[0] == 0
    code, _, errors = command("sweep", PLOP, "--seeds", "3", "--out", tmp_path)
    assert code == 2
    assert f"{tmp_path}: contains another sweep (" in errors
    assert "recipes was ['digits/mib_5-1', 'digits/plop_5-1'], is ['digits/plop_5-1']" in errors
    assert Sweep.read(tmp_path).recipes == [MIB, PLOP]


def test_a_description_that_was_written_by_hand_is_kept(tmp_path, untrained):
    text = f"# mine\nrecipes: [{MIB}]\nseeds: 2\n"
    (tmp_path / FILE).write_text(text)
    assert command("sweep", tmp_path)[0] == 0
    code, _, errors = command("sweep", MIB, "--seeds", "3", "--out", tmp_path)
    assert code == 2
    assert f"{tmp_path / FILE}: was written by hand; change it there" in errors
    assert (tmp_path / FILE).read_text() == text


@pytest.mark.parametrize("name", ["sweep.md", "sweep.html", "clock.json", FILE])
def test_a_file_of_the_user_is_kept(tmp_path, name):
    (tmp_path / name).write_text("of the user")
    code, _, errors = command("sweep", MIB, *SMALL, "--out", tmp_path)
    assert (code, errors.count("\n")) == (2, 1)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of the user"]


def test_a_folder_of_another_version_is_refused(tmp_path):
    (tmp_path / FILE).write_text(f"format: 7\nrecipes: [{MIB}]\n")
    for words in ([tmp_path], [MIB, "--out", tmp_path], ["--status", tmp_path]):
        code, _, errors = command("sweep", *words)
        assert code == 2
        assert "written by another version of contseg (format 7, this one reads 1)" in errors


def begun(folder, *overrides):
    """A sweep of one run that has a saved state."""
    sweep = Sweep(recipes=[MIB], seeds=1, overrides=[*SMALL, *overrides])
    sweep.write(folder)
    (cell,) = sweep.cells(folder)
    begin(cell)
    (cell.run.step_folder(0) / "state.pt").touch()
    cell.run.manifest.record(cell.run.state_path(0))
    return cell


def test_a_changed_recipe_is_refused_with_what_changed(tmp_path):
    cell = begun(tmp_path)
    code, _, errors = command("sweep", MIB, "--seeds", "1", *SMALL, "training.lr=0.5", "--out", tmp_path)
    assert code == 2
    assert "the recipe changed since the run began: training.lr was 0.1, is 0.5; continue with --accept-changes" in errors
    assert "replace it with --overwrite" in errors
    assert cell.begun
    assert "training.lr=0.5" not in Sweep.read(tmp_path).overrides


def test_the_resume_hint_and_the_page_repeat_the_command_and_runs_keep_the_plugins(tmp_path, monkeypatch, untrained):
    plugin, out = tmp_path / "sweep_parts.py", tmp_path / "the sweep"
    plugin.write_text("")
    words = [MIB, "data.flip=0.5", "--vary", "training.lr=0.1,0.2", "--seeds", "3,", "--plugin", plugin, "--out", out]
    ways = ["--jobs", "2", "--overwrite", "--accept-changes"]
    whole = shlex.join(["contseg", "sweep", str(out / FILE), *ways])
    assert command("sweep", *words, *ways)[0] == 0
    page = (out / "sweep.md").read_text(encoding="utf-8")
    assert f"| command | `{whole}` |" in page
    assert f"contseg train {MIB} training.lr=0.1 data.flip=0.5 \"plugins=['{plugin}']\"" in page
    ((_, given),) = untrained
    assert (given.jobs, given.overwrite, given.accept_changes) == (2, True, True)
    cells = Sweep.read(out).cells(out)
    assert [(cell.recipe.plugins, cell.recipe.data.flip) for cell in cells] == [([str(plugin)], 0.5)] * 2

    def interrupted(*arguments):
        raise Interrupted(2)

    monkeypatch.setattr(module, "train_rows", interrupted)
    code, _, errors = command("sweep", *words, *ways)
    assert (code, errors) == (130, f"Interrupted. Resume with: {whole}\n")


def test_the_status_lists_done_running_waiting_and_failed_runs(tmp_path):
    sweep = Sweep(recipes=[MIB], seeds=5, overrides=SMALL)
    sweep.write(tmp_path)
    done, running, cut, failed, _ = cells = sweep.cells(tmp_path)
    for cell in cells[:4]:
        begin(cell)
    done.run.write_text("summary.json", json.dumps({"steps": 6, "old": 50.0, "new": 25.0, "all": None}))
    plan = {"steps": [{"train_images": 30}, {"train_images": 10}]}
    for cell in (running, cut, failed):
        cell.run.write_text("plan.json", json.dumps(plan))
    epoch = {"kind": "epoch", "loss": 1.5, "images_per_second": 10.0}
    running.run.append_metrics(epoch | {"step": 0, "epoch": 0})
    running.run.append_metrics({"kind": "step", "step": 0})
    cut.run.append_metrics(epoch | {"step": 0, "epoch": 0})
    record(failed.run, "no images\nmore of it")
    with owned(running.folder):
        code, printed, _ = command("sweep", "--status", tmp_path)
        assert code == 0
        assert printed.splitlines() == [
            "digits-mib_5-1, seed 0: done  old 50.0  new 25.0",
            "digits-mib_5-1, seed 1: running  step 1/1  0/1 epochs  loss 1.500  1 s left  "
            f"process {os.getpid()} on {os.uname().nodename}",
            "digits-mib_5-1, seed 2: waiting  step 0/1  1/1 epochs  loss 1.500",
            "digits-mib_5-1, seed 3: failed  step 0/1  0/1 epochs  no images",
            "digits-mib_5-1, seed 4: waiting",
            "5 runs: 1 done, 1 running, 2 waiting, 1 failed",
        ]
        found = statuses(cells)
        tables = [table_of(found, height).renderables[0] for height in (100, 8)]
        assert [table.row_count for table in tables] == [5, 2]  # without room for all, those that run or failed
    assert [status.state for status in statuses(cells)] == ["done", "waiting", "waiting", "failed", "waiting"]
    assert line_of(statuses(cells)[4]) == "digits-mib_5-1, seed 4: waiting"


def test_a_run_of_a_process_that_ended_elsewhere_waits(tmp_path):
    cell = begun(tmp_path)
    lock = cell.folder / OF_RUN
    lock.write_text(json.dumps({"host": "another", "process": 1, "since": "yesterday"}))
    assert statuses([cell])[0].state == "running"
    os.utime(lock, (time.time() - 3600,) * 2)
    assert statuses([cell])[0].state == "waiting"


@pytest.mark.slow
def test_a_sweep_trains_what_is_missing_and_tabulates_mean_and_deviation(tmp_path):
    words = ["sweep", "digits/finetune_5-1", *SMALL, "scenario.split=offline", "--jobs", "2", "--out", tmp_path]
    assert command(*words, "--seeds", "1")[0] == 0
    first = Run(tmp_path / "digits-finetune_5-1" / "0")
    before = first.metrics()
    code, out, errors = command(*words, "--seeds", "0,1")
    assert (code, errors) == (0, "")
    assert first.metrics() == before
    assert "±" in out
    assert "2 of 2 finished, seeds 0, 1" in (tmp_path / "sweep.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_that_fails_is_reported_at_the_end_and_others_are_trained(tmp_path):
    words = ["sweep", "digits/finetune_5-1", MIB, *SMALL, "scenario.split=5-5", "--seeds", "1", "--out", tmp_path]
    assert command(*words)[0] == 0
    for name in ("digits-finetune_5-1", "digits-mib_5-1"):
        (tmp_path / name / "0" / "summary.json").unlink()
    plan = tmp_path / "digits-finetune_5-1" / "0" / "plan.json"
    plan.write_text("{}")
    (tmp_path / "digits-mib_5-1" / "0" / "metrics.jsonl").write_text("{}\n")  # restored
    code, out, errors = command(*words)
    assert code == 2
    assert "sweep: 1 run failed, as listed above; repeat the command to try them again" in errors
    assert out.count(f"{plan}: damaged") >= 2  # when it happens, and at the end
    assert "1 of 2 finished" in (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert "digits-finetune_5-1, seed 0: failed" in command("sweep", "--status", tmp_path)[1]


@pytest.mark.slow
def test_a_run_that_began_with_other_code_is_resumed_if_accepted_and_marked(tmp_path):
    options = [*SMALL, "scenario.split=5-5"]
    (cell,) = Sweep(recipes=["digits/finetune_5-1"], seeds=1, overrides=options).cells(tmp_path)
    interrupted(cell.folder, cell.recipe, "step_finished", 1)
    inputs = cell.folder / INPUTS
    cell.run.write_text(INPUTS, json.dumps(json.loads(inputs.read_text()) | {"code": "0123456789ab"}))
    words = ["sweep", "digits/finetune_5-1", *options, "--seeds", "1", "--out", tmp_path]
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

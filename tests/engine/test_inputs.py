"""A run is resumed with what it began with; other inputs are refused, or accepted and shown."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from contseg.engine.inputs import Inputs, accepted_changes, require_agreement
from contseg.engine.run import INPUTS, Run
from contseg.errors import ContsegError
from contseg.lock import OF_RUN, held, owned
from contseg.recipes.read import read_recipe
from contseg.scenarios.plan import make_plan
from tests.conftest import TINY
from tests.engine.runs import command, interrupted, job_in, learn, lines, same, tiny_recipe, weights

RECIPE = tiny_recipe("finetune", "training.epochs=1")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run whose step 0 is finished."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    interrupted(folder, RECIPE, "step_finished", 1)
    return folder


@pytest.fixture
def run(begun, tmp_path):
    return Run(shutil.copytree(begun, tmp_path / "run"))


def contents(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def resume(run: Run, *overrides: str) -> tuple[int, str, str]:
    return command("train", "--resume", run.folder, "--no-cache", *overrides)


def refused(run: Run, message: str, *overrides: str) -> None:
    before = contents(run)
    code, _, errors = resume(run, *overrides)
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors
    assert contents(run) == before


class TestRefused:
    @pytest.mark.parametrize(
        ("key", "before", "message"),
        [
            ("torch", "1.0", f"PyTorch was 1.0, is {torch.__version__}"),
            ("code", "0123456789ab", "the code was 0123456789ab, is "),
            ("ranks", 2, "ranks were 2, are 1"),
        ],
    )
    def test_other_versions_and_ranks(self, run, key, before, message):
        content = json.loads((run.folder / INPUTS).read_text()) | {key: before}
        run.write_text(INPUTS, json.dumps(content))
        refused(run, f"changed since the run began: {message}")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("seed: 42", "seed: 43", "training.seed was 42, is 43"),
            ("crop: 32", "crop: 40", "data.crop was 32, is 40"),
            ("momentum: 0.9", "momentum: 0.8", "training.momentum was 0.9, is 0.8"),
        ],
    )
    def test_a_recipe_that_was_edited_by_hand(self, run, old, new, message):
        path = run.folder / "recipe.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        refused(run, f"changed since the run began: {message}")

    def test_other_weights_to_start_from(self, tmp_path):
        job = job_in(tmp_path / "run", RECIPE)
        inputs = replace(Inputs.of(job, make_plan(job.scenario)), weights={"backbone_weights": "one"})
        assert inputs.changes(replace(inputs, weights={"backbone_weights": "other"})) == [
            "the weights in backbone_weights are others"
        ]
        assert inputs.changes(replace(inputs, weights={})) == []  # the file is no longer needed

    def test_damaged_inputs(self, run):
        (run.folder / INPUTS).write_text("{")
        refused(run, f"{run.folder / INPUTS}: damaged: its SHA-256 is not the one that was written; restore")
        run.manifest.forget(run.folder / INPUTS)
        refused(run, f"{run.folder / INPUTS}: is damaged")

    @pytest.mark.parametrize("name", [INPUTS, "plan.json"])
    def test_a_run_without_what_it_is_compared_with_is_marked(self, run, name):
        (run.folder / name).unlink()
        code, printed, _ = command("train", "--resume", run.folder, "--no-cache")
        assert (code, f"{run.folder}: {name} missing; nothing to compare with" in printed) == (0, True)
        assert accepted_changes(run) == [f"resumed in step 1 with changes: {name} was missing"]
        assert f"{name} was missing" in command("table", run.folder)[1]


class TestAccepted:
    def test_changes_are_recorded_and_shown_and_need_to_be_accepted_once(self, run, tmp_path):
        refused(run, "training.lr_later was 0.003, is 0.0001; resume without them, ", "training.lr_later=0.0001")
        code, _, errors = resume(run, "training.lr_later=0.0001", "--accept-changes")
        assert (code, errors) == (0, "")
        mark = "resumed in step 1 with changes: training.lr_later was 0.003, is 0.0001"
        assert accepted_changes(run) == [mark]
        assert read_recipe(run.folder / "recipe.yaml").training.lr_later == 0.0001
        assert lines(run, "epoch")[1]["lr"] <= 0.0001
        assert mark in " ".join(command("table", run.folder)[1].split())
        assert mark in (run.folder / "report.html").read_text()
        assert resume(run)[0] == 0
        assert accepted_changes(run) == [mark]

    @pytest.mark.parametrize(
        "change", ["network.width=16", "method.name=mib", "training.optimiser=adamw", "scenario.split=4-6"]
    )
    def test_changes_that_a_saved_state_does_not_fit_are_refused(self, run, change):
        refused(run, "the run cannot continue with these changes: ", change, "--accept-changes")

    def test_only_at_a_resume(self, tmp_path):
        code, _, errors = command("train", "digits/mib_5-1", "--out", tmp_path / "run", "--accept-changes")
        assert (code, errors) == (
            2,
            "error: --accept-changes: is for a run that is resumed; add --resume RUN, or remove it\n",
        )


def test_a_run_without_changes_has_no_mark(run):
    assert learn(run.folder, RECIPE).summary()
    assert accepted_changes(run) == []
    assert not (run.folder / OF_RUN).exists()


class TestOwner:
    """A folder belongs to one process at a time."""

    def test_a_second_resume_is_refused(self, run):
        with held(run.folder / OF_RUN, "the first"):
            refused(
                run, f"{run.folder}: a training is already running there (process {os.getpid()} on {socket.gethostname()}"
            )

    def test_an_overwrite_is_refused(self, run):
        with held(run.folder / OF_RUN, "the first"):
            before = contents(run)
            code, _, errors = command("train", "digits/mib_5-1", *TINY, "--out", run.folder, "--overwrite", "--no-cache")
            assert code == 2
            assert "a training is already running there" in errors
            assert contents(run) == before

    def test_an_owner_may_call_what_owns_the_folder_too(self, run):
        with owned(run.folder):
            assert learn(run.folder, RECIPE).summary()
            assert (run.folder / OF_RUN).is_file()


class TestRanks:
    @pytest.fixture
    def inputs(self, run):
        job = job_in(run.folder, RECIPE)
        return Inputs.of(job, make_plan(job.scenario))

    @staticmethod
    def of_two(monkeypatch, change):
        """Ranks 0 and 1 of two, of which the second has what `change` makes of what the first has."""

        def gather(every, own):
            every[:] = [own, change(*own)]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
        return SimpleNamespace(world_size=2)

    def test_that_agree_train(self, run, inputs, monkeypatch):
        require_agreement(self.of_two(monkeypatch, lambda *own: own), run, inputs)

    def test_with_another_recipe_are_an_error(self, run, inputs, monkeypatch):
        def other(own, files):
            return replace(own, recipe=own.recipe | {"training": own.recipe["training"] | {"seed": 7}}), files

        with pytest.raises(ContsegError, match=r"^rank 1 differs from rank 0 .*: training\.seed was 42, is 7; start"):
            require_agreement(self.of_two(monkeypatch, other), run, inputs)

    def test_with_other_files_are_an_error(self, run, inputs, monkeypatch):
        fabric = self.of_two(monkeypatch, lambda own, files: (own, ["", ""]))
        with pytest.raises(ContsegError, match="rank 1 reads other files than rank 0; all nodes must share the folder"):
            require_agreement(fabric, run, inputs)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_launchers_of_one_rank_each_train_like_two_spawned_ranks(tmp_path):
    """As on two nodes."""
    gentle = ("training.epochs=1", "training.lr=0.01", "training.lr_later=0.003")
    options = [*TINY, "scenario.split=5-5", "training.batch=10", *gentle, "training.nodes=2"]
    port = free_port()
    train = ["-m", "contseg", "train", "digits/mib_5-1", *options, "--out", str(tmp_path / "two"), "--no-cache"]
    nodes = []
    for node in (0, 1):
        place = ["--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
        command = [sys.executable, "-m", "torch.distributed.run", *place, f"--master-port={port}", *train]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        nodes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for node in nodes:
        _, errors = node.communicate(timeout=300)
        assert node.returncode == 0, errors
    spawned = learn(tmp_path / "spawned", tiny_recipe("mib", *gentle, "training.devices=2"))
    assert same(weights(Run(tmp_path / "two")), weights(spawned))

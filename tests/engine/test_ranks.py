"""Several processes give what one process with the same global batch gives; on CPU, over gloo."""

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from contseg.engine.environments import OwnProcesses
from contseg.engine.options import TrainingOptions
from contseg.engine.ranks import joined_rank, make_fabric, ranks_of, shard_of
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.methods.registry import make_method
from tests.conftest import TINY
from tests.engine.runs import (
    DOUBLES,
    distance,
    in_double,
    interrupted,
    learn,
    lines,
    same,
    tiny_recipe,
    weights,
    without_dropout,
)

GENTLE = ("training.lr=0.01", "training.lr_later=0.003")
"""Rates at which rounding does not grow into another result within a few updates."""

GENTLER = ("training.lr=0.003", "training.lr_later=0.001")
"""The same for methods that magnify more: by maxima, inverse distances, a strong pull, or sums over outputs."""


def test_one_process_speaks_to_nobody():
    fabric = make_fabric(TrainingOptions(accelerator="cpu"))
    ranks, shard = ranks_of(fabric), shard_of(fabric)
    assert (ranks.rank, ranks.count, shard.rank, shard.count) == (0, 1, 0, 1)
    tensor = object()
    assert ranks.sum(tensor) is tensor
    assert ranks.gather(tensor) is tensor


STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


class TestLaunchers:
    """What the environment says about the processes that exist already."""

    @pytest.fixture
    def fabric(self, monkeypatch):
        def make(environment: dict[str, str], **options):
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            return make_fabric(TrainingOptions(accelerator="cpu", batch=12, **options))

        return make

    @pytest.mark.parametrize(
        "environment",
        [
            pytest.param({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, id="a batch script"),
            pytest.param(STEP | {"SLURM_JOB_NAME": "bash"}, id="a shell"),
            pytest.param(STEP | {"SLURM_PTY_PORT": "5"}, id="a terminal"),
            pytest.param({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, id="a step of one task"),
            pytest.param({"RANK": "3", "LOCAL_RANK": "3", "GROUP_RANK": "2"}, id="what a launcher left"),
        ],
    )
    @pytest.mark.parametrize("devices", [1, 2])
    def test_variables_of_an_allocation_do_no_harm(self, fabric, environment, devices):
        made = fabric(environment, devices=devices)
        assert joined_rank() is None
        assert (made.global_rank, made.world_size) == (0, devices)
        assert (made.strategy.launcher is not None) == (devices > 1)  # it spawns the ranks

    @pytest.mark.parametrize(
        "environment", [TORCHRUN, STEP | {"SLURM_NODEID": "0", "SLURM_LOCALID": "1"}], ids=["torchrun", "srun"]
    )
    def test_the_ranks_of_a_launcher_are_joined(self, fabric, environment):
        made = fabric(environment, devices=2)
        assert joined_rank() == 1
        assert made.world_size == 2

    def test_a_spawned_rank_has_its_own_local_rank_whatever_a_launcher_left(self, monkeypatch):
        monkeypatch.setenv("LOCAL_RANK", "1")
        parent = OwnProcesses()
        assert parent.local_rank() == 0
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as in the spawned process, to which it was pickled
        assert parent.local_rank() == 1

    @pytest.mark.parametrize(
        ("environment", "options", "message"),
        [
            (TORCHRUN, {"devices": 1}, "WORLD_SIZE=2 in the environment, but training.devices=1 and training.nodes=1 make"),
            (TORCHRUN, {"devices": 4}, "WORLD_SIZE=2 in the environment, but training.devices=4"),
            (TORCHRUN, {"devices": 2, "nodes": 2}, "WORLD_SIZE=2 in the environment, but training.devices=2 and"),
            ({"WORLD_SIZE": "4"}, {"devices": 1}, "WORLD_SIZE=4 in the environment"),
            ({"WORLD_SIZE": "many"}, {"devices": 1}, "WORLD_SIZE=many: is set in the environment and is not a number"),
            (STEP, {"devices": 1}, "SLURM_STEP_NUM_TASKS=2 in the environment"),
            ({}, {"nodes": 2}, "training.nodes: 2 nodes need a launcher"),
        ],
    )  # fmt: skip
    def test_another_number_of_processes_is_refused(self, fabric, environment, options, message):
        with pytest.raises(ContsegError, match=message):
            fabric(environment, **options)


def assert_like(two: Run, one: Run) -> None:
    for step in (0, 1):
        precise = [load_file(run.segmenter_path(step)) for run in (two, one)]
        assert distance(*precise) < 1e-6, f"step {step}"  # rounding that grew; a mean of one rank alone is 1e-4 away
        for name, value in one.load_state(step).method.items():  # PLOP's thresholds, SDR's prototypes
            apart = abs(two.load_state(step).method[name] - value).max()
            assert apart < 1e-6 * max(1, abs(value).max()), name
    for left, right in zip(two.confusions(), one.confusions(), strict=True):
        assert left.sum() == right.sum()  # every test image once
        assert abs(left - right).sum() <= 0.001 * right.sum()


@pytest.mark.slow
class TestTwoProcesses:
    """Compared in float64: sums over ranks are taken in another order, and training magnifies the rounding of float32."""

    @pytest.mark.parametrize("name", [name for name in DOUBLES if "pixels" in DOUBLES[name]().learns])
    def test_learn_what_one_learns(self, tmp_path, name):
        method = DOUBLES[name]()
        gentle = GENTLE if name in ("finetune", "frozen", "lwf", "ilt", "mib", "plop") else GENTLER
        recipe_of = tiny_recipe if name == "ssul" else without_dropout  # masks are those of one process, see test_draws.py
        one = learn(tmp_path / "one", recipe_of(method.name, *gentle), method=method)
        two = learn(tmp_path / "two", recipe_of(method.name, *gentle, "training.devices=2"), method=method)
        assert ("thresholds" in one.load_state(1).method) == (method.name in ("plop", "reminder"))
        assert_like(two, one)
        for left, right in zip(lines(two, "epoch"), lines(one, "epoch"), strict=True):
            assert left["terms"] == pytest.approx(right["terms"], rel=1e-6)

    def test_move_the_tables_of_idrnet_as_one_does(self, tmp_path):
        overrides = (*GENTLE, "network.head=fcn", "network.idrnet={attention_width: 8}", "network.dropout=0.0")
        one = learn(tmp_path / "one", tiny_recipe("mib", *overrides), method=DOUBLES["mib"]())
        two = learn(tmp_path / "two", tiny_recipe("mib", *overrides, "training.devices=2"), method=DOUBLES["mib"]())
        assert_like(two, one)
        moved = load_file(one.segmenter_path(1))["head.tables.counter"]
        assert moved.round().sum() > 10

    @pytest.mark.parametrize("name", ["mib", "plop"])
    def test_fuse_weights_as_one_does(self, tmp_path, name):
        method = in_double(make_method(name, fusion="ewf"))
        one = learn(tmp_path / "one", tiny_recipe(name, *GENTLE), method=method)
        two = learn(tmp_path / "two", tiny_recipe(name, *GENTLE, "training.devices=2"), method=method)
        assert_like(two, one)

    def test_gather_passes_and_choose_the_best_epoch_as_one(self, tmp_path):
        overrides = (*GENTLE, "training.accumulate=2", "training.batch=4", "training.keep=best", "scenario.validation=0.2")
        one = learn(tmp_path / "one", tiny_recipe("mib", *overrides), method=DOUBLES["mib"]())
        two = learn(tmp_path / "two", tiny_recipe("mib", *overrides, "training.devices=2"), method=DOUBLES["mib"]())
        assert_like(two, one)

    def test_finish_what_one_began(self, tmp_path):
        recipe = tiny_recipe("plop", *GENTLE)
        one = learn(tmp_path / "one", recipe, method=DOUBLES["plop"]())
        interrupted(tmp_path / "two", recipe, "updated", 6, method=DOUBLES["plop"]())  # in the second epoch
        more = tiny_recipe("plop", *GENTLE, "training.devices=2")
        two = learn(tmp_path / "two", more, method=DOUBLES["plop"](), accept_changes=True)
        assert_like(two, one)

    def test_share_the_first_step_with_two_and_not_with_one(self, tmp_path):
        learn(tmp_path / "one", tiny_recipe("mib"), cache=tmp_path / "cache")
        for name in ("first", "second"):
            learn(tmp_path / name, tiny_recipe("mib", "training.devices=2"), cache=tmp_path / "cache")
        one, first, second = (weights(Run(tmp_path / name), 0) for name in ("one", "first", "second"))
        assert len(list((tmp_path / "cache").iterdir())) == 2
        assert same(second, first)
        assert not same(second, one)

    def test_tell_of_an_unreadable_image_in_one_line(self, tmp_path, make_folder):
        root = make_folder(24)
        data = ("data.dataset=folder", f"data.path={root}", "data.options={}", "scenario.split=2-1")
        image = root / "images" / "003.png"
        image.write_bytes(image.read_bytes()[:80])
        recipe = tiny_recipe("finetune", *data, "training.batch=4", "training.devices=2")
        with pytest.raises(ContsegError, match=r"cannot be read as an image") as caught:
            learn(tmp_path / "run", recipe)
        assert str(image) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_may_be_started_by_torchrun(self, tmp_path):
        """As on several nodes: the processes exist already, and each runs the command."""
        options = [*TINY, *GENTLE, "scenario.split=5-5", "training.batch=10", "training.devices=2"]
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            "-m", "contseg", "train", "digits/mib_5-1", *options, "--out", str(tmp_path / "two"), "--no-cache",
        ]  # fmt: skip
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        spawned = learn(tmp_path / "spawned", tiny_recipe("mib", *GENTLE, "training.devices=2"))
        assert lines(Run(tmp_path / "two")) == lines(spawned)
        assert same(weights(Run(tmp_path / "two")), weights(spawned))
        assert done.stdout.count("run: ") == 1  # one process speaks

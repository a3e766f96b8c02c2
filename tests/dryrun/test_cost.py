"""What a run costs before it is started: counts are exact, times come from a few true updates, the rest is a dash."""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contseg.cli.console import console
from contseg.cli.cost import entries_of, print_sum, shared_seconds, size, span
from contseg.dryrun import cost as costs
from contseg.dryrun.cost import Cost, StepCost, estimate
from contseg.engine.job import Reporter
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.interop.segmenter_file import load_segmenter
from contseg.sweeps.sweep import Sweep
from tests.conftest import TINY
from tests.engine.runs import command, job_in, learn, tiny_recipe

SHORT = [*TINY, "data.options={train: 10, test: 2, size: 32}", "scenario.split=5-5", "training.batch=10"]
MEMORY = ("scenario.memory={size: 6, mix: sampling}", "training.epochs=[1, 2]")


class Updates(Reporter):
    """Counts the updates of each step."""

    def __init__(self):
        self.counts = []

    def step_started(self, step, steps, classes, updates, note=""):
        self.counts.append(0)

    def updated(self, epoch, epochs, loss, images):
        self.counts[-1] += 1


@pytest.mark.parametrize("overrides", [(), MEMORY], ids=["own images", "memory"])
def test_updates_images_and_parameters_are_those_of_the_run(tmp_path, overrides):
    recipe, truth = tiny_recipe("plop", *overrides), Updates()
    expected = estimate(recipe, throughput=50.0)
    run = learn(tmp_path / "run", recipe, reporter=truth)
    assert [step.updates for step in expected.steps] == truth.counts
    for step in expected.steps:
        segmenter = load_segmenter(run.segmenter_path(step.index))[0]
        assert step.parameters == sum(one.numel() for one in segmenter.parameters())
    plan = run.require_plan()["steps"]
    memory = [step["memory_images"] for step in plan]
    assert [step.images for step in expected.steps] == [
        step["train_images"] + kept for step, kept in zip(plan, memory, strict=True)
    ]
    assert [step.tests for step in expected.steps] == [step["test_images"] for step in plan]
    assert expected.trained_images == 10 * sum(truth.counts)


def test_with_a_named_throughput_only_training_has_a_time_and_nothing_is_trained(monkeypatch):
    monkeypatch.setattr(costs, "probe", pytest.fail)
    found = estimate(tiny_recipe("plop"), throughput=50.0)
    assert found.training == found.seconds == pytest.approx(found.trained_images / 50)
    assert (found.testing, found.memory, found.disk, found.working, found.flops) == (None,) * 5


def test_batches_over_ranks_are_probed_on_one_of_them():
    one, two = (estimate(tiny_recipe("finetune", f"training.devices={count}"), device="cpu") for count in (1, 2))
    assert [step.updates for step in one.steps] == [step.updates for step in two.steps]
    flops = [step.flops for step in one.steps]
    assert [step.flops for step in two.steps] == pytest.approx(flops, rel=0.05)
    assert all(flops)
    assert one.memory
    assert one.disk


def test_a_probe_measures_each_kind_of_time_and_the_files(tmp_path):
    recipe = tiny_recipe("plop")
    found = estimate(recipe, device="cpu")
    run = learn(tmp_path / "run", recipe)
    truth = sum(path.stat().st_size for path in run.folder.glob("steps/*/*"))
    assert found.disk == pytest.approx(truth, rel=0.25)
    assert found.working
    assert found.working > 3 * (run.folder / "steps/00/segmenter.safetensors").stat().st_size
    assert min(found.training, found.testing) > 0
    assert found.steps[1].flops > found.steps[0].flops  # with a teacher


class Work(TorchDispatchMode):
    """A clock of one step per number that an operator reads or writes: the same on every machine, whatever else runs."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.numbers += sum(one.numel() for one in tree_leaves((args, kwargs, result)) if isinstance(one, torch.Tensor))
        return result

    def __call__(self) -> float:
        return float(self.numbers)


def test_the_estimated_time_is_that_of_the_run_within_a_quarter(tmp_path):
    """In operations of tensors in place of seconds, as others on the machine change its speed, sometimes by half."""
    overrides = ("data.options={train: 120, test: 40, size: 48}", "data.crop=48", "training.epochs=6")
    recipe = tiny_recipe("plop", *overrides, "training.loggers=[]", "training.workers=0")
    with Work() as clock:
        expected = estimate(recipe, device="cpu", clock=clock).seconds
    with Work() as clock:
        train(job_in(tmp_path, recipe))
    assert 0.75 < expected / clock() < 1.25


def made(key: str, *seconds: float | None) -> Cost:
    """A cost whose steps train for these seconds and test for one."""
    steps = [StepCost(index, 10, 1, 1, 1, 1000, training=each, testing=1.0) for index, each in enumerate(seconds)]
    return Cost(tuple(steps), key, 10, None, None, None)


def test_a_step_0_that_runs_share_is_counted_once():
    assert shared_seconds([made("a", 8.0, 1.0), made("a", 8.0, 2.0), made("b", 4.0, 2.0)]) == [11.0, 4.0, 8.0]
    assert shared_seconds([made("a", None, 1.0), made("a", None, 1.0)]) == [None, None]


@pytest.mark.parametrize(
    ("jobs", "wall"), [(1, "23 s with 1 run"), (2, "12 s with 2 runs"), (8, "11 s with 8 runs")], ids=str
)
def test_the_wall_clock_time_is_shared_by_runs_in_parallel_and_is_that_of_the_longest_at_least(jobs, wall):
    with console.capture() as capture:
        print_sum([made("a", 8.0, 1.0), made("a", 8.0, 2.0), made("b", 4.0, 2.0)], jobs)
    assert capture.get() == f"wall-clock time: {wall} in parallel\n"


def test_what_is_not_known_is_a_dash():
    assert (span(None), size(None)) == ("-", "-")


class TestTheCommand:
    def test_prints_the_steps_of_a_recipe_and_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, out, _ = command("cost", "digits/finetune_5-1", *SHORT, "--device", "cpu")
        assert code == 0
        assert all(f"{what}: " in out for what in ("time", "operations", "memory", "disk"))
        assert "estimated from a few updates on CPU" in out
        assert "…" not in out  # in 80 columns
        assert list(Path().iterdir()) == []

    def test_has_dashes_for_what_a_throughput_does_not_give(self):
        code, out, _ = command("cost", "digits/finetune_5-1", *SHORT, "--throughput", "10")
        assert code == 0
        assert "memory: - per rank" in out
        assert "at 10.0 images/s, tests -)" in out

    def test_sums_a_sweep_without_its_finished_runs(self, tmp_path):
        sweep = Sweep(recipes=["digits/finetune_5-1", "digits/mib_5-1"], seeds=2, overrides=SHORT)
        sweep.write(tmp_path)
        first = sweep.cells(tmp_path)[0]
        learn(first.folder, first.recipe)
        assert Run(first.folder).summary()
        entries, finished = entries_of([str(tmp_path)], [])
        assert ([entry.row for entry in entries], finished) == (
            ["digits/mib_5-1", "digits/finetune_5-1", "digits/mib_5-1"], 1
        )  # fmt: skip
        code, out, _ = command("cost", tmp_path, "--throughput", "10", "--jobs", "2")
        assert code == 0
        assert "1 run finished and not counted" in out
        assert "with 2 runs in parallel" in out
        assert "…" not in out

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (["training.lr=0.1"], "cost: name at least one recipe or sweep"),
            (["digits/nope"], "digits/nope"),
            (["."], "sweep.yaml"),
            (["digits/plop_5-1", "--throughput", "0"], "--throughput"),
        ],
        ids=["no recipe", "no such recipe", "no sweep", "no throughput"],
    )
    def test_a_mistake_is_one_line(self, tmp_path, monkeypatch, words, error):
        monkeypatch.chdir(tmp_path)
        code, _, errors = command("cost", *words)
        assert (code, errors.count("\n")) == (2, 1)
        assert error in errors

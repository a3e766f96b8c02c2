"""EWC, PI and RW in whole runs: what they remember survives kills, files, caches, and several ranks."""

from dataclasses import dataclass

import pytest
import torch

from contseg.methods.ewc import EWC
from contseg.methods.finetune import Finetune
from contseg.methods.pi import PI
from contseg.methods.rw import RW
from tests.engine.runs import Watching, distance, interrupted, learn, same, tiny_recipe, weights

METHODS = {"ewc": EWC, "pi": PI, "rw": lambda: RW(interval=3)}
GENTLE = ("training.lr=0.01", "training.lr_later=0.001")


@dataclass(frozen=True)
class DoubleRW(RW):
    """RW in float64."""

    def prepare(self, segmenter, step):
        segmenter.double()


@pytest.mark.parametrize(
    ("name", "event", "count"),
    [("ewc", "updated", 14), ("pi", "updated", 14), ("rw", "updated", 6), ("rw", "step_finished", 1), ("rw", "updated", 14)],
)
def test_a_run_that_was_stopped_ends_with_the_same_weights_and_importances(name, event, count, tmp_path):
    recipe = tiny_recipe("finetune", *GENTLE)
    whole = learn(tmp_path / "whole", recipe, method=METHODS[name]())
    interrupted(tmp_path / "run", recipe, event, count, method=METHODS[name]())
    run = learn(tmp_path / "run", recipe, method=METHODS[name]())
    assert same(weights(run), weights(whole))
    assert same(run.load_state(1).method, whole.load_state(1).method)


def test_importances_come_out_of_the_cache_with_the_weights(tmp_path):
    recipe, watching = tiny_recipe("finetune", *GENTLE), Watching()
    learn(tmp_path / "plain", recipe, method=Finetune(), cache=tmp_path / "cache", reporter=watching)
    first = learn(tmp_path / "first", recipe, method=EWC(), cache=tmp_path / "cache", reporter=watching)
    second = learn(tmp_path / "second", recipe, method=EWC(), cache=tmp_path / "cache", reporter=watching)
    assert watching.updates == [8, 8, 8, 8, 0, 8]
    assert same(second.load_state(0).method, first.load_state(0).method)
    assert same(weights(second), weights(first))


def test_a_given_first_step_is_held_on_to(tmp_path):
    given = learn(tmp_path / "given", tiny_recipe("finetune", *GENTLE))
    recipe = tiny_recipe("finetune", *GENTLE, f"start_from={str(given.segmenter_path(0))!r}")
    ways = []
    for number, method in enumerate((EWC(importance=0.0), EWC(importance=500.0))):
        run = learn(tmp_path / f"run{number}", recipe, method=method)
        assert same(weights(run, 0), weights(given, 0))
        then, now = weights(run, 0), weights(run, 1)
        fishers = run.load_state(0).method
        assert fishers
        ways.append(
            sum(float((now[name] - then[name]).square().sum()) for name in (key.removeprefix("fisher.") for key in fishers))
        )
    assert ways[1] < ways[0]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["trained", "given"])
def test_two_processes_remember_what_one_does(start, tmp_path):
    recipe = [*GENTLE]
    if start == "given":
        given = learn(tmp_path / "given", tiny_recipe("finetune", *GENTLE))
        recipe.append(f"start_from={str(given.segmenter_path(0))!r}")
    one = learn(tmp_path / "one", tiny_recipe("finetune", *recipe), method=DoubleRW(interval=3))
    two = learn(tmp_path / "two", tiny_recipe("finetune", *recipe, "training.devices=2"), method=DoubleRW(interval=3))
    for step in (0, 1):
        ones, twos = (run.load_state(step).method for run in (one, two))
        assert ones.keys() == twos.keys()
        for key, value in ones.items():
            assert torch.allclose(twos[key], value, rtol=1e-5, atol=1e-9 * float(value.abs().max())), key
    assert distance(weights(two), weights(one)) < 1e-6

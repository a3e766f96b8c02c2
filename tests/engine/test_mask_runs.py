"""Runs of methods that classify masks: every one trains, stops anywhere and ends alike, and divides its updates freely."""

import pytest

from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from tests.conftest import TINY
from tests.engine.runs import distance, interrupted, learn, lines, same, weights

SMALL = [
    "network.backbone.size=32",
    "network.backbone.options={embed_dim: 16, num_heads: 2}",
    "network.head.queries=8",
    *[key for key in TINY if not key.startswith("network.")],
    "scenario.split=5-5",
    "training.batch=10",
]
METHODS = ["comformer", "balconpas", "simcis", "mib-masks", "plop-masks", "finetune-eomt", "frozen-eomt"]
TERMS = {"class", "mask", "dice", "auxiliary_block1", "auxiliary_block2"}
MORE = {
    "comformer": {"distillation"},
    "balconpas": {"tokens"},
    "simcis": {"selection", "virtual"},
    "mib-masks": {"distillation"},
    "plop-masks": {"pod"},
    "finetune-eomt": set(),
}


def mask_recipe(name, *overrides):
    return read_recipe(f"digits/{name}_5-1", [*SMALL, *overrides])


@pytest.mark.parametrize("name", [*METHODS[:3], *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS[3:])])
def test_a_run_has_its_terms_and_ends_alike_wherever_it_was_stopped(tmp_path, name):
    recipe = mask_recipe(name, *["scenario.memory.size=6"] * (name == "balconpas"))
    whole = learn(tmp_path / "whole", recipe)
    first, last = lines(whole, "epoch")[0]["terms"], lines(whole, "epoch")[-1]["terms"]
    assert first.keys() == TERMS
    if name in MORE:
        assert last.keys() == TERMS | MORE[name]
    assert 0 <= whole.summary()["all"] <= 100
    interrupted(tmp_path / "run", recipe, "updated", 11)  # in the second step
    run = learn(tmp_path / "run", recipe)
    assert lines(run) == lines(whole)
    assert all(same(weights(run, step), weights(whole, step)) for step in (0, 1))


@pytest.mark.parametrize("name", ["balconpas", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS[3:])])
def test_two_passes_learn_what_one_learns(tmp_path, name):
    # Without a stem: its batch norm sees a pass alone.
    plain = ["training.optimiser=sgd", "network.backbone.stem=null", *["scenario.memory=null"] * (name == "balconpas")]
    one = learn(tmp_path / "one", mask_recipe(name, *plain))
    two = learn(tmp_path / "two", mask_recipe(name, *plain, "training.batch=5", "training.accumulate=2"))
    assert distance(weights(one), weights(two)) < 1e-4


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("balconpas", ["scenario.memory.size=6"]),
        ("simcis", ["method.variant=released", "network.head.decision=owner-simcis", "network.background=learned"]),
    ],
)
def test_a_step_in_the_middle_is_learned_with_the_published_leak(tmp_path, name, overrides):
    recipe = mask_recipe(name, *overrides, "scenario.split=6-2", "scenario.variant=released")
    run = learn(tmp_path / "run", recipe)
    assert len(run.confusions()) == 3
    assert lines(run, "epoch")[-1]["terms"].keys() == TERMS | MORE[name]


@pytest.mark.parametrize(("name", "term"), [("comformer", "distillation"), ("simcis", "virtual")])
def test_terms_of_a_whole_batch_refuse_passes(tmp_path, name, term):
    with pytest.raises(ContsegError, match=rf"training\.accumulate: .*{term}"):
        make_job(mask_recipe(name, "training.accumulate=2"), tmp_path)


def test_frozen_keeps_every_old_class_and_mask(tmp_path):
    run = learn(tmp_path / "run", mask_recipe("frozen-eomt"))
    before, after = (load_segmenter(run.segmenter_path(step))[0].state_dict() for step in (0, 1))
    old = {name: value for name, value in after.items() if name in before}
    assert same(before, old)


def test_the_memory_of_balconpas_is_as_frequent_as_the_steps(tmp_path):
    jobs = {
        choice: make_job(mask_recipe("balconpas", "scenario.memory.size=8", f"scenario.memory.choice={choice}"), tmp_path)
        for choice in ("balanced", "turns")
    }
    kept = {choice: [name for part in job.scenario[1].memory for name in part.names] for choice, job in jobs.items()}
    assert len(kept["balanced"]) == len(kept["turns"]) == 8
    assert kept["balanced"] != kept["turns"]

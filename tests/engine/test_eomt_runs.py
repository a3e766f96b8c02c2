"""Runs of EoMT: queries in front of a vision transformer learn, stop and continue like any other network."""

import pytest
import torch

from contseg.engine.optimiser import make_optimiser
from contseg.engine.options import TrainingOptions
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.models.eomt.annealing import mask_probability
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from tests.engine.runs import distance, interrupted, learn, lines, same, tiny_recipe, weights

NETWORK = (
    "network={backbone: {name: dinov2_reg_tiny, patch: 8, size: 32, options: {embed_dim: 16, num_heads: 2}},"
    " head: {name: eomt, queries: 8, blocks: 2, annealing: [[0.1, 0.6], [0.4, 0.9]]}}"
)
KEYS = [NETWORK, "training.optimiser=adamw", "training.lr=1e-3", "training.lr_later=1e-3"]


def eomt_recipe(method="finetune", *overrides):
    return tiny_recipe(method, *KEYS, *overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stops: two steps of two epochs of four updates."""
    return learn(tmp_path_factory.mktemp("whole") / "run", eomt_recipe("mib-masks"))


@pytest.mark.parametrize(("event", "count"), [("updated", 3), ("updated", 6), ("step_finished", 1), ("updated", 13)])
def test_wherever_it_was_stopped_it_ends_alike(whole, tmp_path, event, count):
    interrupted(tmp_path / "run", eomt_recipe("mib-masks"), event, count)
    run = learn(tmp_path / "run", eomt_recipe("mib-masks"))
    assert lines(run) == lines(whole)
    for step in (0, 1):
        assert same(weights(run, step), weights(whole, step)), f"step {step}"


def test_every_prediction_has_its_term_and_the_file_knows_that_attention_is_open(whole):
    terms = lines(whole, "epoch")[0]["terms"]
    assert {"class", "mask", "dice", "auxiliary_block1", "auxiliary_block2"} <= terms.keys()
    for step in (0, 1):
        assert weights(whole, step)["head._extra_state"].tolist() == [0.0, 0.0]


def test_the_state_within_step_0_knows_how_far_attention_was_opened(tmp_path):
    interrupted(tmp_path / "run", eomt_recipe(), "updated", 6)  # the state is that after the first epoch
    first, second = Run(tmp_path / "run").load_state(0).model["head._extra_state"].tolist()
    assert (first, second) == (mask_probability(4, 0.8, 4.8), mask_probability(4, 3.2, 7.2))
    assert 0 < first < second < 1


@pytest.mark.parametrize("key", ["training.memory=lean", "training.workers=1"])
def test_what_changes_no_number_changes_none(tmp_path, whole, key):
    run = learn(tmp_path / "run", eomt_recipe("mib-masks", key))
    assert all(same(weights(run, step), weights(whole, step)) for step in (0, 1))


def test_two_passes_draw_as_one(tmp_path):
    one = learn(tmp_path / "one", eomt_recipe("finetune", "training.optimiser=sgd"))
    two = learn(
        tmp_path / "two", eomt_recipe("finetune", "training.optimiser=sgd", "training.batch=5", "training.accumulate=2")
    )
    assert distance(weights(one), weights(two)) < 1e-5


@pytest.mark.parametrize("kind", ["network.backbone.freeze=all", "network.backbone.lora=2"])
def test_a_trunk_that_is_not_tuned_keeps_its_weights(tmp_path, kind):
    run = learn(tmp_path / "run", eomt_recipe("finetune", kind))
    before, after = weights(run, 0), weights(run, 1)
    trunk = [name for name in after if name.startswith("backbone.model.")]
    moved = {name for name in trunk if not torch.equal(before[name], after[name])}
    assert moved == {name for name in trunk if ".lora_" in name}
    assert not torch.equal(before["head.q.weight"], after["head.q.weight"])


def test_a_gaussian_head_on_the_same_trunk(tmp_path):
    run = learn(
        tmp_path / "run", eomt_recipe("gaussian", "training.epochs=[2, 0]", "method.tap=stage4", "method.expansion=0")
    )
    assert weights(run)["classifier.steps.1.weight"].shape[:2] == (5, 16)
    assert 0 <= run.summary()["all"] <= 100


def test_rates_of_two_warm_ups_and_of_layers_reach_the_optimiser():
    network = eomt_recipe().network
    segmenter = make_segmenter(network, [6])
    options = TrainingOptions(schedule="warm-twice", layer_decay=0.5, layer_decay_spares=1)
    split = make_optimiser([{"params": list(segmenter.parameters()), "lr_factor": 1.0}], segmenter, options)
    found = sorted((group["lr_factor"], group["late"]) for group in split.param_groups)
    assert found == [(0.125, True), (0.25, True), (0.5, True), (1.0, False), (1.0, True)]


def test_the_backbone_waits_for_its_warm_up(tmp_path):
    keys = ["training.schedule=warm-twice", "training.warmup_updates=8", "training.backbone_warmup_updates=8"]
    run = learn(tmp_path / "run", eomt_recipe("finetune", *keys))
    step = weights(run, 1)
    assert torch.equal(weights(run, 0)["backbone.model.norm.weight"], torch.ones(16))
    assert torch.equal(step["backbone.model.norm.weight"], torch.ones(16))
    assert not torch.equal(weights(run, 0)["head.q.weight"], step["head.q.weight"])


def test_a_backbone_without_layers_is_refused():
    segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}), [3])
    with pytest.raises(ContsegError, match=r"training\.layer_decay: resnet18 has no blocks"):
        make_optimiser([{"params": list(segmenter.parameters())}], segmenter, TrainingOptions(layer_decay=0.9))

"""Passes that are gathered learn what the large batch learns, or are refused before anything is made."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from contseg.data.classes import IGNORE
from contseg.engine import train as engine
from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_job
from tests.engine.runs import DOUBLES, distance, in_double, job_in, learn, lines, tiny_recipe, weights, without_dropout
from tests.kinds import PIXELS

# images of many scales are padded with ignored pixels, so that batches have unequal numbers of valid ones
OPTIONS = (
    "data.options={train: 12, test: 2, size: 32}", "data.pipeline=ssseg", "data.resize=[32, 32]", "data.scale=[0.4, 1.5]",
    "scenario.split=5-5",
    "training.epochs=1", "training.lr=0.01", "training.lr_later=0.003",
)  # fmt: skip
LARGE, GATHERED = ("training.batch=4",), ("training.batch=2", "training.accumulate=2")


@pytest.fixture(autouse=True)
def running_statistics(monkeypatch):
    """So that an image does not feel its neighbours in the batch norms."""
    train = Segmenter.train

    def gentle(self, mode=True):
        train(self, mode)  # which holds what does not learn
        return torch.nn.Module.train(self, False)

    monkeypatch.setattr(Segmenter, "train", gentle)


def assert_alike(tmp_path, name, *overrides, method=None, keys=()):
    """In float64, in which nothing hides behind rounding."""
    runs = []
    for how in (LARGE, GATHERED):
        recipe = without_dropout(name, *OPTIONS, *keys, *(f"method.{key}" for key in overrides), *how)
        job = job_in(tmp_path / how[0], recipe)
        own = method or in_double(job.method)
        runs.append(learn(tmp_path / how[0], recipe, method=replace(own)))
        assert len(job.scenario) == 2
    large, gathered = runs
    for step in (0, 1):
        rounding = 1e-6 if job.method.learns_without_updates else 1e-9  # a solved system amplifies that of the features
        assert distance(*(load_file(run.segmenter_path(step)) for run in runs)) < rounding, f"step {step}"
    return lines(large, "epoch"), lines(gathered, "epoch")


ACCEPTED = [
    *(name for name in PIXELS if name not in ("sdr", "idec", "lag", "star", "adapter", "reminder", "ucd")),
    "idec variant=released",
    "lag variant=released",
    "ilt only_old=true",
    "plop variant=released",
    "lwf-mc targets=disjoint",
]


QUICK = ("ssul", "plop")
"""A mean over valid pixels with pseudo labels, and labels that become invalid."""


@pytest.mark.parametrize(
    "what", [what if what in QUICK else pytest.param(what, marks=pytest.mark.slow) for what in ACCEPTED]
)
def test_two_passes_of_two_learn_what_one_of_four_learns(tmp_path, what):
    name, *overrides = what.split()
    large, gathered = assert_alike(tmp_path, name, *overrides)
    inert = {"distillation", "contrast", "consistency"} if "released" in what else set()  # their value trains nothing
    for one, other in zip(large, gathered, strict=True):
        left, right = ({key: value for key, value in line["terms"].items() if key not in inert} for line in (one, other))
        assert left == pytest.approx(right, rel=1e-9)


def test_a_mean_over_valid_pixels_is_over_those_of_all_passes(tmp_path):
    assert_alike(tmp_path, "finetune", keys=("training.average=valid",))


def test_a_batch_is_relabelled_once_and_counted_as_it_is_then(tmp_path):
    seen = []

    class Counting(DOUBLES["finetune"]):
        def relabel(self, batch, teacher, context):
            seen.append(batch.names)
            first = batch.labels.flatten(1).sum(dim=1) % 2 == 0  # of the image alone, however images are batched
            keep = torch.arange(batch.labels.shape[2]) % 3 > 0
            return batch.relabelled(batch.labels.where(~first[:, None, None] | keep, IGNORE), batch.weights)

    assert_alike(tmp_path, "finetune", method=Counting(), keys=("training.average=valid",))
    large, gathered = [batch for batch in seen if len(batch) == 4], [batch for batch in seen if len(batch) == 2]
    assert len(gathered) == 2 * len(large)
    assert [name for batch in gathered for name in batch] == [name for batch in large for name in batch]


@pytest.mark.parametrize("name", ["sdr", "idec", "lag", "star", "adapter", "reminder", "ucd"])
def test_methods_that_relate_images_to_each_other_are_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(ContsegError, match=rf"^training.accumulate: method '{name}' computes .* training.batch=4") as caught:
        make_job(tiny_recipe(name, *OPTIONS, *GATHERED), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_so_are_the_tables_of_idrnet(tmp_path):
    recipe = tiny_recipe("mib", *OPTIONS, *GATHERED, "network.head=fcn", "network.idrnet={attention_width: 8}")
    with pytest.raises(ContsegError, match=r"^training.accumulate: the tables of network.head.idrnet"):
        make_job(recipe, tmp_path / "run")


def test_a_mean_over_labels_of_its_own_is_refused(tmp_path):
    class Own(Finetune):
        def supervise(self, output, batch, context):
            return context.mean_over_valid(output.logits_at(batch.size).sum(dim=1), batch.labels.clone())

    with pytest.raises(ContsegError, match=r"^training.accumulate: .* pass `derive` to mean_over_valid"):
        engine.train(job_in(tmp_path / "run", tiny_recipe("finetune", *OPTIONS, *GATHERED), method=Own()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ewc", "rw"])
def test_importances_of_a_step_that_was_given_are_those_of_the_large_batch(tmp_path, name):
    given = learn(tmp_path / "given", tiny_recipe("finetune", *OPTIONS, *LARGE))
    start = f"start_from={given.segmenter_path(0)}"
    fishers = []
    for how in (LARGE, GATHERED):
        run = learn(tmp_path / how[0], tiny_recipe(name, *OPTIONS, start, *how), method=DOUBLES[name]())
        fishers.append(run.load_state(0).method)
    for key, value in fishers[0].items():
        torch.testing.assert_close(fishers[1][key], value, rtol=1e-4, atol=1e-12)
    assert any(key.startswith("fisher") for key in fishers[0])
    assert weights(run, 1)

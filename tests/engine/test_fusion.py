"""EWF in a run: what is tested and continued is the mean of the weights before and after a step."""

import pickle
from dataclasses import replace

import pytest
import torch

from contseg.errors import ContsegError
from contseg.methods.ewf import EWF, fuse, fusion_share
from contseg.methods.mib import MiB
from contseg.methods.registry import make_method
from contseg.models.options import NetworkOptions
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from contseg.scenarios.step import Step
from tests.engine.runs import interrupted, learn, lines, same, tiny_recipe, weights

FUSED = "method.fusion=ewf"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", tiny_recipe("mib", FUSED))


def test_the_file_of_a_step_is_the_mean_of_its_ends(tmp_path, whole):
    """Against a run without fusion but with the same frozen classifiers, whose second step ends with the new weights."""

    class Holding(MiB):
        def prepare(self, segmenter, step):
            if step.old_count:
                segmenter.freeze_old_classifiers()

    plain = learn(tmp_path / "plain", tiny_recipe("mib"), method=Holding())
    assert same(weights(plain, 0), weights(whole, 0))
    expected = weights(plain, 1)
    fuse(weights(plain, 0), expected, fusion_share(6, 5))
    assert same(weights(whole, 1), expected)
    assert not same(weights(whole, 1), weights(plain, 1))


@pytest.mark.parametrize(("event", "count"), [("updated", 6), ("step_finished", 1), ("updated", 13), ("evaluated", 5)])
def test_it_goes_on_where_it_was_stopped(tmp_path, whole, event, count):
    interrupted(tmp_path / "run", tiny_recipe("mib", FUSED), event, count)
    run = learn(tmp_path / "run", tiny_recipe("mib", FUSED))
    assert lines(run) == lines(whole)
    assert same(weights(run, 1), weights(whole, 1))


def test_the_next_step_begins_with_the_fused_weights(tmp_path):
    """Also of a method without a teacher, in a third step."""
    options = ("method.fusion=ewf", "scenario.split=5-3-2", "training.lr_later=0.00000001")
    run = learn(tmp_path / "run", tiny_recipe("finetune", *options))
    for name, value in weights(run, 1).items():
        if name.endswith(("weight", "bias")):
            torch.testing.assert_close(weights(run, 2)[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_tables_that_grow_are_fused_where_they_were(tmp_path):
    network = ("network.head=fcn", "network.idrnet={}", FUSED)
    run = learn(tmp_path / "run", tiny_recipe("mib", *network))
    grown = [name for name, value in weights(run, 0).items() if value.shape != weights(run, 1)[name].shape]
    assert grown
    assert all(torch.isfinite(value).all() for value in weights(run, 1).values())


def test_step_0_is_that_of_the_method():
    assert make_method("mib", fusion="ewf").first_step_key() == {}
    assert make_method("star", fusion="ewf").first_step_key() == make_method("star").first_step_key()


def test_it_is_pickled_for_ranks():
    method = make_method("plop", variant="released", pod=0.5, fusion="ewf", fused_values="moved")
    method.state["thresholds"] = torch.ones(2)
    found = pickle.loads(pickle.dumps(method))
    assert (found, type(found)) == (method, type(method))
    assert isinstance(found, EWF)
    assert torch.equal(found.state["thresholds"], torch.ones(2))


def test_null_is_no_fusion():
    assert read_recipe("digits/mib_5-1", ["method.fusion=null"]) == read_recipe("digits/mib_5-1")


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ("mib", "method.fusion=ewc", r"method\.fusion: Input should be 'ewf' \(got 'ewc'\)"),
        ("mib", "method.fused_values=moved", r"method\.fused_values: method 'mib' has no such hyper-parameter"),
        ("gaussian", FUSED, r"method\.fusion: 'gaussian' computes its weights and learns none to fuse"),
    ],
)
def test_wrong_values_are_told(tmp_path, recipe, override, message):
    with pytest.raises(ContsegError, match=message):
        make_job(tiny_recipe(recipe, override), tmp_path)


def test_steps_without_classes_are_refused():
    steps = [Step.of(["background", "cat"], old=old) for old in (0, 2)]
    with pytest.raises(ContsegError, match=r"method\.fusion: step 1 adds no class"):
        make_method("mib", fusion="ewf").check(NetworkOptions(), [steps[0], replace(steps[1], index=1)])

"""DFT*: classifiers of later steps exist from step 0 on, and later steps train classifiers alone."""

import pytest
import torch
from safetensors.torch import load_file

from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.registry import make_method
from contseg.models.classifier import GrowingClassifier
from contseg.models.options import NetworkOptions
from contseg.scenarios.step import Step
from tests.engine.runs import interrupted, job_in, learn, lines, same, tiny_recipe, weights

RECIPE = tiny_recipe("dft", "scenario.split=5-3-2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", RECIPE)


def test_every_step_has_the_classifiers_of_those_to_come(whole):
    segmenters = [load_segmenter(whole.segmenter_path(step))[0] for step in range(3)]
    assert [segmenter.widths for segmenter in segmenters] == [[6], [6, 3], [6, 3, 2]]
    later = [{step: one.out_channels for step, one in each.classifier.later.items()} for each in segmenters]
    assert later == [{"1": 3, "2": 2}, {"2": 2}, {}]


def test_later_steps_change_the_classifiers_of_new_and_coming_classes_alone(whole):
    first, second = weights(whole, 0), weights(whole, 1)
    second = {name.replace("classifier.steps.1", "classifier.later.1"): value for name, value in second.items()}
    assert first.keys() == second.keys()
    moved = {name for name, value in first.items() if not torch.equal(value, second[name])}
    assert moved == {f"classifier.later.{step}.{kind}" for step in (1, 2) for kind in ("weight", "bias")}


def test_step_0_trains_classes_to_come_as_negatives(whole, tmp_path):
    start = learn(tmp_path / "run", tiny_recipe("dft", "scenario.split=5-3-2", "training.lr=0.00000001"))
    for step in ("1", "2"):
        name = f"classifier.later.{step}.bias"
        assert (weights(whole, 0)[name] < weights(start, 0)[name] - 1e-3).all()


@pytest.mark.parametrize(("event", "count"), [("updated", 6), ("step_finished", 1), ("updated", 13)])
def test_it_goes_on_where_it_was_stopped(tmp_path, whole, event, count):
    interrupted(tmp_path / "run", RECIPE, event, count)
    run = learn(tmp_path / "run", RECIPE)
    assert lines(run) == lines(whole)
    assert all(same(weights(run, step), weights(whole, step)) for step in range(3))


def test_step_0_is_cached_by_what_was_reserved(tmp_path):
    keys = [
        job_in(tmp_path / split, tiny_recipe("dft", f"scenario.split={split}")).first_step_key()
        for split in ("5-3-2", "5-5")
    ]
    assert len(set(keys)) == 2


def test_another_method_that_goes_on_drops_them(whole, tmp_path):
    start = str(whole.segmenter_path(0))
    run = learn(tmp_path / "run", tiny_recipe("mib", "scenario.split=5-5", f"start_from={start!r}"))
    assert not any(".later." in name for step in (0, 1) for name in load_file(run.segmenter_path(step)))


def test_steps_without_classes_are_refused():
    steps = [Step.of(["background", "cat"], old=old) for old in (0, 2)]
    with pytest.raises(ContsegError, match=r"method\.name: 'dft' only trains classifiers, and step 1 adds no class"):
        make_method("dft").check(NetworkOptions(), steps)


def test_another_number_than_was_reserved_is_told():
    classifier = GrowingClassifier(4, [2])
    classifier.reserve([3])
    with pytest.raises(ContsegError, match=r"grow: 3 outputs were reserved for this step, which adds 1"):
        classifier.grow(1, "reserved")

"""Runs of method `gaussian`: one trained step, then closed form, in every kind of scenario."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contseg.data.classes import ClassTable
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError
from contseg.interop.pretrained import load_statistics, save_pretrained
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from tests.conftest import TINY
from tests.engine.runs import (
    Watching,
    folder_of_a_new_class,
    interrupted,
    job_in,
    learn,
    lines,
    same,
    tiny_recipe,
    weights,
)
from tests.scenarios.towns import cities

QUICK = ("training.epochs=1", "method.expansion=8")


def recipe(*overrides: str):
    return tiny_recipe("gaussian", *QUICK, *overrides)


def sums_after(run, step=1) -> GaussianSums:
    return GaussianSums.from_state(run.load_state(step).method)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", recipe())


class TestARun:
    def test_has_updates_in_step_0_only(self, whole):
        assert {line["step"] for line in lines(whole, "epoch")} == {0}
        assert [line["step"] for line in lines(whole, "step")] == [0, 1]

    def test_changes_no_weight_of_backbone_and_head_after_step_0(self, whole):
        first, last = weights(whole, 0), weights(whole, 1)
        trunk = [name for name in first if not name.startswith(("classifier.", "auxiliary."))]
        assert all(torch.equal(first[name], last[name]) for name in trunk)
        assert len(trunk) > 50

    def test_predicts_new_classes(self, whole):
        assert np.diag(whole.confusions()[1])[6:].any()

    def test_keeps_the_sums_of_old_classes(self, whole):
        first, last = sums_after(whole, 0), sums_after(whole, 1)
        assert first.classes == last.classes[:5]
        for before, after in zip(first.only(first.classes), last.only(first.classes), strict=True):
            assert torch.equal(before, after)
        assert len(last.steps) == 2

    def test_continues_after_an_interruption(self, whole, tmp_path):
        interrupted(tmp_path / "run", recipe(), "step_finished", 1)
        run = learn(tmp_path / "run", recipe())
        assert same(weights(run), weights(whole))
        assert lines(run) == lines(whole)

    def test_shares_step_0_with_other_methods(self, whole, tmp_path):
        learn(tmp_path / "finetune", tiny_recipe("finetune", "training.epochs=1"), cache=tmp_path / "cache")
        watching = Watching()
        run = learn(tmp_path / "run", recipe(), cache=tmp_path / "cache", reporter=watching)
        assert watching.notes == ["from the cache", ""]
        assert same(weights(run, 0), weights(whole, 0))
        assert same(weights(run), weights(whole))

    @pytest.mark.parametrize(
        "override",
        [
            "method.expansion=0",
            "method.tap=stage2",
            "method.rho=auto",
            "method.background=distance",
            "method.centres=3",
            "method.covariance=frozen",
            "method.cells=majority",
            "network.auxiliary={width: 4}",
        ],
    )
    def test_has_options(self, whole, tmp_path, override):
        run = learn(tmp_path / "run", recipe(override))
        assert run.summary()["steps"] == 2
        assert len(run.confusions()[1]) == 11

    def test_keeps_old_scores_with_a_frozen_covariance(self, tmp_path):
        run = learn(tmp_path / "run", recipe("method.covariance=frozen"))
        images = torch.randn(2, 3, 32, 32)
        before, after = (load_segmenter(run.segmenter_path(step))[0](images).logits for step in (0, 1))
        assert torch.equal(before[:, 1:6], after[:, 1:6])


class TestScenarios:
    @pytest.mark.parametrize("setting", ["disjoint", "partitioned", "sequential"])
    def test_by_class(self, tmp_path, setting):
        run = learn(tmp_path / "run", recipe(f"scenario.setting={setting}"))
        assert sums_after(run).counts.shape == (10,)

    def test_replay_memory_adds_nothing_to_the_sums(self, whole, tmp_path):
        run = learn(tmp_path / "run", recipe("scenario.memory={size: 6, mix: sampling}"))
        assert same(weights(run, 1), weights(whole, 1))

    def test_fewer_images(self, whole, tmp_path):
        run = learn(tmp_path / "run", recipe("scenario.ratio=0.5"))
        assert sums_after(run).counts.sum() < sums_after(whole).counts.sum()

    def test_all_classes_at_once(self, tmp_path):
        run = learn(tmp_path / "run", recipe("scenario.split=offline", "training.epochs=1"))
        assert len(run.confusions()) == 1

    def test_domain_after_domain(self, tmp_path):
        dataset = cities(tmp_path / "data", {"aachen": 10, "bremen": 8, "lindau": 5}, ("lindau",))
        small = ("training.batch=4", "data.test_crop=16", "data.crop=16")
        job = job_in(tmp_path / "run", recipe(*small))
        job = replace(job, scenario=Scenario(dataset, ScenarioOptions(by="domain", split="1-1")))
        train(job)
        first, last = (sums_after(Run(job.folder), step) for step in (0, 1))
        assert first.classes == last.classes
        assert first.counts.sum() < last.counts.sum()


class TestASegmenterThatWasGiven:
    def test_continues_with_the_sums_of_its_folder(self, whole, tmp_path):
        segmenter, classes = load_segmenter(whole.segmenter_path(0))
        statistics = sums_after(whole, 0).state_dict()
        folder = save_pretrained(tmp_path / "given", segmenter, classes, statistics=statistics)
        assert load_statistics(folder).keys() == statistics.keys()
        run = learn(tmp_path / "run", recipe(f"start_from={folder}"))
        assert same(weights(run), weights(whole))

    def test_continues_with_the_sums_of_a_run(self, whole, tmp_path):
        run = learn(tmp_path / "run", recipe(f"start_from={whole.segmenter_path(0)}"))
        assert same(weights(run), weights(whole))

    def test_gets_sums_from_the_images_of_step_0_if_it_has_none(self, whole, tmp_path):
        plain = learn(tmp_path / "plain", tiny_recipe("finetune", "training.epochs=1", "scenario.split=5-5"))
        segmenter, classes = load_segmenter(plain.segmenter_path(0))
        folder = save_pretrained(tmp_path / "given", segmenter, classes)
        run = learn(tmp_path / "run", recipe(f"start_from={folder}"))
        assert same(weights(run), weights(whole))

    @pytest.mark.parametrize("way", ["confident", "columns"])
    def test_learns_a_class_without_sums_and_without_old_images(self, tmp_path, way):
        plain = folder_of_a_new_class(tmp_path / "data")
        torch.manual_seed(0)
        network = tiny_recipe("finetune").network
        first = Segmenter(network, [3]).eval()
        table = ClassTable.of(("background", "red", "green"))
        folder = save_pretrained(tmp_path / "given", first, table)
        changes = (*plain, f"start_from={folder}", f"method.without_sums={way}", "method.expansion=0")
        run = learn(tmp_path / "run", tiny_recipe("gaussian", *changes))
        last = load_segmenter(run.segmenter_path(1))[0]
        assert sum(last.widths) == 4
        images = torch.randn(2, 3, 32, 32)
        kept = torch.equal(last(images).logits[:, :3], first(images).logits)
        assert kept == (way == "columns")
        assert ("description" in run.load_state(1).method) == (way == "confident")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["training.epochs=3"], r"training\.epochs: 3 in step 1, but .* set training\.epochs=\[3, 0\]"),
            (["training.epochs=[3, 1]"], r"training\.epochs: 1 in step 1, but .* set training\.epochs=\[3, 0\]"),
            (["training.epochs=0"], r"training\.epochs: 0 in step 0, but .* set \[30, 0\], or backbone_weights"),
            (["method.rho=0.0"], r"method\.rho: Input should be greater than 0 \(got 0\.0\)"),
            (["method.centres=2", "method.background=distance"], r"method\.centres: .* set method\.centres=0"),
            (["method.without_sums=columns"], r"method\.without_sums: .* set method\.tap=head and method\.expansion=0"),
            (["network.head={name: fcn, idrnet: {attention_width: 8}}"], r"method\.name: .* network\.head\.idrnet grow"),
            (["scenario.policy=ssul"], r"method\.name: 'gaussian' has no output \"unknown\""),
        ],
    )
    def test_is_refused_in_one_line(self, tmp_path, overrides, message):
        with pytest.raises(ContsegError, match=message) as caught:
            make_job(read_recipe("digits/gaussian_5-1", [*TINY, "training.epochs=[2, 0]", *overrides]), tmp_path / "run")
        assert "\n" not in str(caught.value)

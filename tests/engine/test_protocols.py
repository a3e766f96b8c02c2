"""Whole runs of the protocols that do more than bring classes: memory, an unknown output, domains."""

from dataclasses import replace

import numpy as np
import pytest

from contseg.engine.loading import Batches, epoch_draws
from contseg.engine.options import TrainingOptions
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.registry import METHODS
from contseg.recipes.build import make_job
from contseg.scenarios.batch import Pool
from contseg.scenarios.options import MemoryOptions, ScenarioOptions
from contseg.scenarios.scenario import Scenario
from tests.engine.runs import command, interrupted, job_in, learn, lines, same, tiny_recipe, weights
from tests.kinds import PIXELS
from tests.scenarios.towns import Towns, cities


def learn_scenario(folder, dataset, method="finetune", **options) -> Run:
    """Train the tiny recipe on a scenario of another dataset."""
    job = job_in(folder, tiny_recipe(method, "training.batch=4", "training.epochs=1", "data.test_crop=16", "data.crop=16"))
    train(replace(job, scenario=Scenario(dataset, ScenarioOptions(**options))))
    return Run(folder)


class TestMemory:
    @pytest.mark.parametrize("method", ["finetune", "mib", "plop", "sdr", "ucd"])
    @pytest.mark.parametrize("mix", ["share", "sampling"])
    def test_every_method_learns_with_exemplars(self, tmp_path, method, mix):
        recipe = tiny_recipe(method, f"scenario.memory={{size: 6, mix: {mix}}}", "training.epochs=1")
        run = learn(tmp_path / "run", recipe)
        assert not same(weights(run), weights(learn(tmp_path / "plain", tiny_recipe(method, "training.epochs=1"))))
        assert run.summary()["steps"] == 2

    def test_sampling_draws_exemplars_like_the_images_of_the_step(self, tmp_path):
        recipe = tiny_recipe(
            "finetune", "scenario.memory={size: 20, mix: sampling}", "training.batch=4", "training.epochs=1"
        )
        job = job_in(tmp_path / "run", recipe)
        step = job.scenario[1]
        seen = []
        pool = Pool((step.train, *step.memory))
        draws = epoch_draws(len(pool), job.training, 1, 0)
        assert len(draws) == (len(step.train) + 20) // 4
        for batch in Batches(pool, job.training_pipeline, draws, seed=0, step=1, device="cpu"):
            for name, annotated in zip(batch.names, batch.annotated.tolist(), strict=True):
                seen.append(name)
                new = list(range(step.old_count, step.seen_count))
                marked = [place for place, known in enumerate(annotated) if known]
                exemplar = marked == list(range(1, step.old_count))
                assert exemplar or marked == new
        assert len(set(seen)) > len(step.train)

    def test_exemplars_arrive_with_the_labels_they_had(self, tmp_path):
        recipe = tiny_recipe("finetune", "scenario.memory={size: 20}")
        step = job_in(tmp_path / "run", recipe).scenario[1]
        (part,) = step.memory
        pool, options = Pool((step.train, part)), TrainingOptions(batch=4)
        draws = epoch_draws(len(step.train), options, 1, 0, exemplars=20, share=0.5)
        job = job_in(tmp_path / "run", recipe)
        for batch in Batches(pool, job.training_pipeline, draws, seed=0, step=1, device="cpu"):
            old = batch.annotated[:, 1]
            assert old.sum() == 2
            assert (batch.labels[old] < step.old_count).all()
            assert (batch.labels[~old][batch.labels[~old] > 0] >= step.old_count).all()

    def test_an_interrupted_run_with_memory_ends_with_the_same_bits(self, tmp_path):
        recipe = tiny_recipe("mib", "scenario.memory={size: 6}")
        whole = learn(tmp_path / "whole", recipe)
        interrupted(tmp_path / "part", recipe, "updated", 11)  # in the second epoch of the second step
        part = learn(tmp_path / "part", recipe)
        assert same(weights(whole), weights(part))
        assert lines(whole) == lines(part)

    def test_a_share_that_is_no_image_is_told(self, tmp_path):
        recipe = tiny_recipe("finetune", "scenario.memory={size: 6, share: 0.05}")
        with pytest.raises(ContsegError, match=r"scenario\.memory\.share: 0\.05 of a batch of 10 is less than one image"):
            make_job(recipe, tmp_path)


class TestUnknown:
    def test_outputs_begin_with_the_unknown_and_predictions_do_not(self, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("finetune", "scenario.policy=ssul", "training.epochs=1"))
        segmenter, classes = load_segmenter(run.segmenter_path(1))
        assert segmenter.options.unknown
        assert segmenter.widths == [1, 1, 5, 5]
        assert [len(confusion) for confusion in run.confusions()] == [6, 11]
        assert len(classes) == 11
        with np.load(run.folder / "steps" / "01" / "predictions.npz") as saved:
            assert max(saved[name].max() for name in saved if name.startswith("prediction")) < 11

    @pytest.mark.parametrize("method", [name for name in PIXELS if not METHODS[name].handles_unknown])
    def test_methods_that_know_no_unknown_are_refused(self, tmp_path, method):
        with pytest.raises(ContsegError, match=rf"method\.name: '{method}' has no output \"unknown\".*use finetune"):
            make_job(tiny_recipe(method, "scenario.policy=ssul"), tmp_path)

    @pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if kind.needs_unknown])
    def test_methods_that_need_one_are_told_the_policy(self, tmp_path, method):
        with pytest.raises(ContsegError, match=rf"scenario\.policy: method '{method}' .* set scenario\.policy=ssul"):
            make_job(tiny_recipe(method, "scenario.policy=plop"), tmp_path)

    def test_an_unknown_output_without_labels_for_it_is_refused(self, tmp_path):
        with pytest.raises(ContsegError, match=r"network\.unknown: policy plop has no labels for it"):
            make_job(tiny_recipe("finetune", "network.unknown=true"), tmp_path)


class TestDomains:
    COUNTS = {"aachen": 10, "bremen": 8, "lindau": 5}  # noqa: RUF012

    @pytest.mark.parametrize("method", ["finetune", "mib", "plop", "sdr"])
    def test_every_method_learns_domain_after_domain_without_background(self, tmp_path, method):
        dataset = cities(tmp_path / "data", self.COUNTS, ("lindau",))
        run = learn_scenario(tmp_path / "run", dataset, method, by="domain", split="1-1")
        assert [len(confusion) for confusion in run.confusions()] == [4, 4, 4]
        assert load_segmenter(run.segmenter_path(2))[0].widths == [4]
        names, confusions = run.domain_confusions()
        assert names == ("aachen", "bremen", "lindau")
        assert [(matrices.sum(axis=(1, 2)) > 0).tolist() for matrices in confusions] == [
            [True, False, False],
            [True, True, False],
            [True, True, True],
        ]
        for union, matrices in zip(run.confusions(), confusions, strict=True):
            assert np.array_equal(union, matrices.sum(axis=0))
        summary = run.summary()
        assert list(summary["domains"]) == list(names)
        assert summary["all"] == summary["all_with_background"]  # the first class is a class like the others
        assert "domain_forgetting" in summary

    def test_a_report_shows_the_domains(self, tmp_path):
        dataset = cities(tmp_path / "data", self.COUNTS, ("lindau",))
        run = learn_scenario(tmp_path / "run", dataset, by="domain", split="1-1")
        assert command("report", run.folder)[0] == 0
        assert "mIoU of each domain" in (run.folder / "report.html").read_text()

    def test_scenarios_without_domains_have_no_figures_of_them(self, tmp_path):
        train_ = {f"{n}": {1 + n % 4} for n in range(12)}
        run = learn_scenario(tmp_path / "run", Towns(tmp_path / "data", train_, train_), split="2-1")
        assert run.domain_confusions()[0] == ()
        assert "domains" not in run.summary()


def test_memory_options_are_part_of_a_recipe():
    recipe = tiny_recipe("mib", "scenario.memory={size: 6, mix: sampling, seed: 3}")
    assert recipe.scenario.memory == MemoryOptions(size=6, mix="sampling", seed=3)

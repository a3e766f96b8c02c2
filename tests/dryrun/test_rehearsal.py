"""What a rehearsal does, and what it finds wrong with a recipe."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from contseg.dryrun import rehearsal
from contseg.dryrun.rehearsal import rehearse, require_figures
from contseg.dryrun.stand_ins import quartered, ready_norms, write_images
from contseg.engine.job import Job
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from contseg.methods.registry import register_method
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter
from contseg.recipes.read import parse_recipe, read_recipe

TINY = {
    "name": "tiny",
    "data": {"dataset": "voc", "crop": 48, "test_crop": 32},
    "scenario": {"split": "15-1"},
    "network": {"backbone": "resnet18", "width": 4, "head": "fcn", "head_width": 8},
    "method": {"name": "finetune"},
    "training": {"lr": 0.01, "lr_later": 0.001},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Where the rehearsals of this file share the images that stand in for VOC."""
    folder = tmp_path_factory.mktemp("shared")
    write_images("voc", folder)
    return folder


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe file: the tiny one with changes, without what they make None; returns its path."""

    def write(**changes) -> Path:
        changed = {key: TINY.get(key, {}) | value for key, value in changes.items()}
        content = TINY | {
            key: {name: one for name, one in value.items() if one is not None} for key, value in changed.items()
        }
        path = tmp_path / "tiny.yaml"
        YAML().dump(content, path)
        return path

    return write


@pytest.fixture
def registered(forgotten):
    """Registers methods that are forgotten after the test."""
    return register_method


@pytest.fixture
def jobs(monkeypatch):
    """The jobs that are trained."""
    seen: list[Job] = []

    def train(job, reporter):
        seen.append(job)
        return original(job, reporter)

    original = rehearsal.train
    monkeypatch.setattr(rehearsal, "train", train)
    return seen


class TestSoundRecipe:
    def test_it_has_the_parameters_of_the_network_after_its_last_step(self, recipe, images):
        told = rehearse(recipe(), folder=images)
        network = read_recipe(recipe()).network
        whole = Segmenter(network, [*first_widths(network, 16), 1, 1, 1, 1, 1])
        assert told.recipe == "tiny"
        assert told.parameters == sum(parameter.numel() for parameter in whole.parameters())
        assert told.seconds > 0
        assert told.memory is None or 0 < told.memory < 100

    def test_nothing_stays(self, recipe, images, monkeypatch, tmp_path):
        monkeypatch.setenv("TMPDIR", str(tmp_path / "there"))
        monkeypatch.setattr("tempfile.tempdir", None)
        (tmp_path / "there").mkdir()
        cache = os.environ["CONTSEG_CACHE"]
        before = set(Path(cache).rglob("*"))
        rehearse(recipe(), folder=images)
        assert list((tmp_path / "there").iterdir()) == []
        assert os.environ["CONTSEG_CACHE"] == cache
        assert set(Path(cache).rglob("*")) == before

    def test_what_must_be_there_is_not_asked_for(self, recipe, images):
        absent = ["backbone_weights=/nowhere/resnet.pth", "data.path=/nowhere", "training.workers=4", "training.devices=8"]
        rehearse(recipe(), [*absent, "training.compile=true", "training.precision=16-mixed"], folder=images)

    @pytest.mark.parametrize(
        "scenario",
        [
            {"memory": {"size": 10}, "split": "10-5-5"},
            {"memory": {"size": 10, "mix": "sampling"}},
            {"lists": "/nowhere", "setting": "disjoint"},
            {"ratio": 0.01, "ratio_choice": "random"},
            {"split": "offline"},
        ],
        ids=str,
    )
    def test_every_kind_of_scenario_can_be_tried(self, scenario, recipe, images):
        rehearse(recipe(scenario=scenario), folder=images)

    def test_saliency_maps_are_stood_in_for(self, recipe, images):
        scenario = {"policy": "ssul", "saliency": "/nowhere"}
        network = {"head": "deeplabv3-ssul", "decision": "sigmoid"}
        rehearse(recipe(scenario=scenario, network=network, method={"name": "ssul"}), folder=images)

    def test_the_best_of_two_epochs_can_be_kept(self, recipe, images):
        rehearse(recipe(scenario={"validation": 0.1}, training={"keep": "best"}), folder=images)


class TestWhatIsRun:
    @pytest.mark.parametrize("accumulate", [1, 8])
    def test_two_updates_of_the_first_two_steps_in_batches_of_two(self, accumulate, recipe, images, jobs):
        rehearse(recipe(training={"accumulate": accumulate, "batch": 24, "epochs": 30}), folder=images)
        job = jobs[0]
        assert len(job.scenario) == 2
        assert (job.training.batch, job.training.accumulate) == (2, min(accumulate, 2))
        for step in job.scenario:
            passes = max(1, len(step.train) // (2 * job.training.accumulate)) * job.training.epochs_of(step.index)
            assert passes == 2
            assert len(step.test) == 2

    @pytest.mark.parametrize("single", [False, True])
    def test_two_iterations_are_enough_for_the_norms_of_a_deep_network(self, single):
        torch.manual_seed(0)
        network = {"backbone": "resnet101", "width": 4, "head": "fcn", "head_width": 8, "norm_momentum": 0.0003}
        network |= {"initialisation": "he"}  # whose numbers grow from block to block
        raw, ready = (Segmenter(NetworkOptions(**network), [3]) for _ in range(2))
        ready_norms(ready, single)
        largest = []
        for segmenter in (raw, ready):
            images = torch.randn(2, 3, 64, 64)
            for _ in range(2):
                segmenter.train()(images)
            largest.append(segmenter.eval()(images, taps=("stage4",)).features["stage4"].abs().max())
        assert largest[0] > 1000
        assert largest[1] < 100
        assert raw.state_dict().keys() == ready.state_dict().keys()

    def test_swin_large_sees_single_images(self, recipe, images, jobs):
        small = {"embed_dim": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1]}
        network = {"backbone": "swin_large", "backbone_options": small, "head": "upernet", "fpn_width": 8, "width": None}
        rehearse(recipe(network=network), folder=images)
        assert jobs[0].training.batch == 1

    @pytest.mark.parametrize(("quarter", "crop"), [(False, 256), (True, 64)])
    def test_the_crop_is_the_recipes_own_or_a_quarter(self, quarter, crop, recipe, images, jobs):
        rehearse(recipe(data={"crop": 256}), quarter=quarter, folder=images)
        assert jobs[0].training_pipeline.size == crop


class TestQuarters:
    def test_every_side_is_a_quarter_in_whole_pixels_and_32_at_least(self):
        data = {"dataset": "voc", "crop": [473, 512], "test_crop": 512, "resize": [2048, 100], "pipeline": "ssseg"}
        evaluation = {"mode": "slide", "crop": 640, "stride": [426, 90], "fit": [2048, 512]}
        small = quartered(parse_recipe({"name": "small", "data": data, "evaluation": evaluation}, "small"))
        assert small.data.crop == [118, 128]
        assert small.data.test_crop == 128
        assert small.data.resize == [512, 32]
        assert (small.evaluation.crop, small.evaluation.stride, small.evaluation.fit) == (160, [106, 32], [512, 128])

    def test_what_is_small_or_absent_stays(self):
        tiny = quartered(parse_recipe({"name": "tiny", "data": {"dataset": "voc", "crop": 16}}, "tiny"))
        assert (tiny.data.crop, tiny.data.test_crop, tiny.evaluation.resize) == (16, None, None)


class TestWhatIsFound:
    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"training": {"betas": [0.5, 0.9]}}, "training.betas"),
            ({"training": {"gamma": 0.5}}, "training.gamma"),
            ({"scenario": {"ratio_choice": "random"}}, "scenario.ratio_choice"),
            ({"scenario": {"memory": {"size": 10, "mix": "sampling", "share": 0.3}}}, "scenario.memory.share"),
            ({"evaluation": {"stride": 20}}, "evaluation.stride"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_key_without_effect_is_named_with_its_file(self, changes, key, recipe, images):
        path = recipe(**changes)
        with pytest.raises(ContsegError, match=rf"^{key} has no effect without .* \(set by {path}\); remove it$"):
            rehearse(path, folder=images)

    def test_a_key_that_only_later_steps_read_is_let_pass_where_there_are_none(self, recipe, images):
        later = {"lr_later": 0.1, "lr_factors_later": {"backbone": 0.5}}
        rehearse(recipe(scenario={"split": "offline"}, training=later), folder=images)

    def test_a_hyper_parameter_that_nothing_reads_is_named(self, recipe, images, registered):
        @registered
        @dataclass(frozen=True)
        class Vain(Finetune):
            weight: float = 1.0
            shown: float = 1.0
            name = "vain"

            def first_step_key(self):
                return {"weight": self.weight}

            def supervise(self, output, batch, context):
                return self.shown * super().supervise(output, batch, context)

        rehearse(recipe(method={"name": "vain", "shown": 2.0}), folder=images)
        with pytest.raises(ContsegError, match=r"^method\.weight has no effect with this method"):
            rehearse(recipe(method={"name": "vain", "weight": 2.0, "shown": 2.0}), folder=images)

    def test_a_term_that_trains_nothing_and_does_not_say_so_is_named(self, recipe, images, registered):
        @registered
        @dataclass(frozen=True)
        class Idle(Finetune):
            name = "idle"
            needs_teacher = True

            def losses(self, batch, student, teacher, context):
                terms = super().losses(batch, student, teacher, context)
                return terms | ({"pull": teacher.logits.mean()} if teacher else {})

        with pytest.raises(ContsegError, match="term 'pull' reaches no trainable parameter at step 1"):
            rehearse(recipe(method={"name": "idle"}), folder=images)

    def test_a_loss_that_is_not_finite_is_told(self, recipe, images, registered):
        @registered
        @dataclass(frozen=True)
        class Broken(Finetune):
            name = "broken"

            def supervise(self, output, batch, context):
                loss = super().supervise(output, batch, context)
                return loss / 0 if context.step.index else loss

        with pytest.raises(ContsegError, match="loss is not finite at step 1"):
            rehearse(recipe(method={"name": "broken"}), folder=images)

    def test_a_feature_that_the_teacher_lacks_is_named(self, recipe, images, registered):
        @registered
        @dataclass(frozen=True)
        class Greedy(Finetune):
            name = "greedy"
            needs_teacher = True
            taps = ("aspp1",)

            def check(self, network, steps):
                """Looks at nothing."""

        with pytest.raises(ContsegError, match="tap 'aspp1': resnet18 with fcn has"):
            rehearse(recipe(method={"name": "greedy"}), folder=images)

    @pytest.mark.parametrize(
        ("spoil", "told"),
        [
            (
                lambda norm: norm._non_persistent_buffers_set.add("running_mean"),
                r"backbone\.bn1\.running_mean: the file of the segmenter contains nothing, a new network needs \(4,\)",
            ),
            (
                lambda norm: norm.register_buffer("aside", torch.zeros(3)),
                r"backbone\.bn1\.aside: the file of the segmenter contains \(3,\), a new network needs nothing",
            ),
            (
                lambda norm: norm.register_buffer("num_batches_tracked", norm.num_batches_tracked + 0.5),
                r"backbone\.bn1\.num_batches_tracked: differs when",
            ),
        ],
        ids=["missing", "too many", "not the same bits"],
    )
    def test_a_tensor_that_does_not_come_back_from_the_file_is_named(self, spoil, told, recipe, images, registered):
        @registered
        @dataclass(frozen=True)
        class Spoiling(Finetune):
            name = "spoiling"

            def after_step(self, context):
                spoil(context.student.backbone.bn1)

        with pytest.raises(ContsegError, match=rf"^tensor {told}"):
            rehearse(recipe(method={"name": "spoiling"}), folder=images)

    @pytest.mark.parametrize(
        ("step", "told"),
        [
            ({"kind": "step", "step": 1, "all_with_background": None}, r"a step line of step 1 are \[None\]"),
            ({"kind": "step", "step": 1, "all_with_background": float("nan")}, r"a step line of step 1 are \[nan\]"),
            ({"kind": "other", "step": 1}, "a step line of step 1 are missing"),
        ],
    )
    def test_figures_that_are_missing_or_not_finite_are_told(self, step, told, tmp_path):
        run = Run(tmp_path)
        for index in range(2):
            run.append_metrics({"kind": "epoch", "step": index, "loss": 1.0})
        run.append_metrics({"kind": "step", "step": 0, "all_with_background": 0.1})
        require_figures(run, 1)
        run.append_metrics(step)
        with pytest.raises(ContsegError, match=told):
            require_figures(run, 2)

    def test_where_undecided_pixels_are_ignored_nothing_may_be_left_to_measure(self, tmp_path):
        run = Run(tmp_path)
        run.append_metrics({"kind": "epoch", "step": 0, "loss": 1.0})
        run.append_metrics({"kind": "step", "step": 0, "all_with_background": None})
        require_figures(run, 1, unmeasured=True)
        with pytest.raises(ContsegError, match="a epoch line of step 1 are missing"):
            require_figures(run, 2, unmeasured=True)

    def test_a_dataset_without_stand_in_is_told(self, recipe):
        with pytest.raises(
            ContsegError, match=r"data\.dataset: 'folder' has no synthetic images for a dry run; use another dataset"
        ):
            rehearse(recipe(data={"dataset": "folder"}))

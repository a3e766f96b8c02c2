"""What networks that learn all classes at once are trained with: means over valid pixels, clipped gradients, AdamW."""

from dataclasses import replace

import pytest
import torch

from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference, InferenceOptions
from contseg.losses.cross_entropy import cross_entropy
from contseg.methods.finetune import Finetune
from contseg.methods.method import StepContext
from contseg.methods.mib import MiB
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step
from tests.engine.runs import distance, interrupted, job_in, learn, lines, same, tiny_recipe, weights

ONE_STEP = ("scenario.split=offline", "training.epochs=1")


def supervised(average: str, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The supervised term, its gradient, and cross-entropy per pixel."""
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = Batch(torch.empty(0), labels, ("a", "b"), torch.ones(2, 3, dtype=torch.bool))
    method = Finetune()
    context = replace(StepContext.for_loop(None, None, Step.of("abc"), method), average=average)
    term = method.supervise(SegmenterOutput(logits), batch, context)
    return term, torch.autograd.grad(term, logits)[0], cross_entropy(logits, labels)


def test_the_loss_is_the_mean_over_all_pixels_or_over_valid_ones():
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    labels[:, :1] = 255
    (over_all, all_gradient, each), (over_valid, valid_gradient, _) = (supervised(way, labels) for way in ("all", "valid"))
    torch.testing.assert_close(over_valid, each[labels != 255].mean())
    torch.testing.assert_close(over_all, each.mean())
    torch.testing.assert_close(valid_gradient, all_gradient * 32 / 24)


def test_a_batch_without_a_valid_pixel_has_no_loss_and_no_gradient():
    term, gradient, _ = supervised("valid", torch.full((2, 4, 4), 255))
    assert term.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("override", ["training.average=valid", "training.clip=0.01", "training.optimiser=adamw"])
def test_every_option_changes_what_is_learned_and_survives_an_interruption(tmp_path, override):
    recipe = tiny_recipe("finetune", "training.epochs=2", "data.pipeline=ssul", override)
    whole = learn(tmp_path / "whole", recipe)
    interrupted(tmp_path / "cut", recipe, "updated", 6)
    resumed = learn(tmp_path / "cut", recipe)
    assert same(weights(whole), weights(resumed))
    assert lines(whole) == lines(resumed)


def test_averages_over_pixels_differ_only_where_some_are_ignored(tmp_path, monkeypatch):
    ways = [tiny_recipe("finetune", *ONE_STEP, f"training.average={way}") for way in ("all", "valid")]
    runs = [learn(tmp_path / str(number), recipe) for number, recipe in enumerate(ways)]
    assert distance(*(weights(run, 0) for run in runs)) < 1e-5  # digits ignore no pixel
    monkeypatch.setattr("contseg.methods.method.IGNORE", 0)  # background
    other = learn(tmp_path / "other", ways[1])
    assert distance(weights(other, 0), weights(runs[1], 0)) > 1e-4


def test_a_limit_shortens_gradients_and_one_that_never_binds_changes_nothing(tmp_path):
    common = (*ONE_STEP, "training.momentum=0.0", "training.weight_decay=0.0")
    plain, loose, tight = (
        learn(tmp_path / name, tiny_recipe("finetune", *common, f"training.clip={limit}"))
        for name, limit in (("plain", "null"), ("loose", 1e6), ("tight", 1e-6))
    )
    assert same(weights(plain, 0), weights(loose, 0))
    recipe = tiny_recipe("finetune", *common, "training.lr=1e-12")
    start = weights(learn(tmp_path / "start", recipe), 0)
    parameters = [name for name in start if "running" not in name and "num_batches" not in name]
    moved = sum(float((weights(tight, 0)[name] - start[name]).square().sum()) for name in parameters) ** 0.5
    assert moved < 20 * 1e-6 * 0.1 * 1.1  # at most clip x rate for each of the updates
    assert distance(weights(plain, 0), start) > 1e-3


def test_a_method_with_a_supervised_term_of_its_own_refuses_another_average(tmp_path):
    with pytest.raises(ContsegError, match=r"training\.average: 'valid' is for plain cross-entropy; method 'mib' has"):
        job_in(tmp_path / "run", tiny_recipe("mib", "training.average=valid"))
    assert job_in(tmp_path / "other", tiny_recipe("mib"), method=MiB())


NEW = [
    "optimiser=adamw", "betas=[0.8, 0.9]", "no_decay=[norm]", "clip=1.0", "average=valid", "floor=0.01",
    "warmup_updates=5", "warmup_ratio=0.5",
]  # fmt: skip


@pytest.mark.parametrize("option", NEW)
def test_every_option_keeps_the_first_step_from_being_shared(tmp_path, option):
    keys = [
        job_in(tmp_path / str(number), tiny_recipe("finetune", *options)).first_step_key()
        for number, options in enumerate(([], [f"training.{option}"]))
    ]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("keep", "override", "shared"),
    [
        ("last", "evaluation.mode=slide", True),
        ("best", "evaluation.mode=slide", False),
        ("best", "evaluation.flip=true", True),
    ],
)
def test_how_images_are_seen_matters_to_the_first_step_only_where_the_best_epoch_is_kept(tmp_path, keep, override, shared):
    best = [f"training.keep={keep}", "scenario.validation=0.25"]
    one, other = (
        job_in(tmp_path / str(number), tiny_recipe("finetune", *best, *more)).first_step_key()
        for number, more in enumerate(([], [override]))
    )
    assert (one == other) is shared


def test_the_best_epoch_is_sought_at_one_scale_through_the_windows_of_the_recipe(tmp_path, monkeypatch):
    asked = []

    def measured(segmenter, batches, classes, on_batch=None, inference=None, together=1):
        asked.append(inference)
        return torch.eye(classes, dtype=torch.int64)

    monkeypatch.setattr("contseg.engine.measure.evaluate", measured)
    looks = ["evaluation={mode: slide, crop: 24, flip: true, scales: [1.0, 1.5]}"]
    best = ["training.keep=best", "scenario.validation=0.25"]
    learn(tmp_path / "run", tiny_recipe("finetune", *ONE_STEP, *best, *looks))
    assert asked == [Inference(InferenceOptions(mode="slide", crop=24))]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.floor=1", "training.floor"),
        ("training.clip=0", "training.clip"),
        ("training.betas=[0.9]", "training.betas"),
        ("training.warmup_updates=0", "training.warmup_updates"),
        ("training.warmup_ratio=0", "training.warmup_ratio"),
        ("training.no_decay=['']", "training.no_decay"),
        ("training.optimiser=adam", "training.optimiser"),
    ],
)
def test_wrong_options_are_told_in_one_line_with_their_key(override, told):
    with pytest.raises(ContsegError) as error:
        tiny_recipe("finetune", override)
    assert told in str(error.value)
    assert "\n" not in str(error.value)

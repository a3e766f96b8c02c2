"""Number formats, memory layout and compilation change how a run computes, hardly what it finds."""

import math
from dataclasses import dataclass

import pytest
import torch

from contseg.engine.run import Run
from contseg.methods.finetune import Finetune
from contseg.methods.registry import METHODS
from contseg.models.classifier import GrowingClassifier
from tests.engine.runs import interrupted, learn, lines, same, tiny_recipe, weights
from tests.kinds import PIXELS

GENTLE = ("training.lr=0.01", "training.lr_later=0.01")
"""Rates at which rounding does not grow into another result."""


def losses(run) -> list[float]:
    return [line["loss"] for line in lines(run, "epoch")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The losses in float32."""
    return losses(learn(tmp_path_factory.mktemp("reference") / "run", tiny_recipe("mib", *GENTLE)))


@pytest.mark.parametrize(
    "option",
    [
        "training.precision=bf16-mixed",
        "training.precision=16-mixed",
        "training.channels_last=false",
    ],
)
def test_two_steps_are_learned_with_about_the_same_loss(tmp_path, reference, option):
    run = learn(tmp_path / "run", tiny_recipe("mib", *GENTLE, option))
    assert all(math.isfinite(loss) for loss in losses(run))
    assert losses(run) == pytest.approx(reference, rel=0.02)
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(run).values())
    assert run.summary() is not None


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        ("lag", "16-mixed"),
        *(pytest.param(name, "bf16-mixed", marks=pytest.mark.slow) for name in sorted(PIXELS)),
    ],
)
def test_every_method_learns_in_half_precision(tmp_path, method, precision):
    """That a method asks for gradients of its own, as LAG does, makes no difference."""
    policy = ("scenario.policy=ssul", "network.unknown=true") if METHODS[method].needs_unknown else ()
    shorter = ("training.epochs=1", "data.options.train=16", "data.options.test=4")
    run = learn(tmp_path / "run", tiny_recipe(method, *GENTLE, *policy, *shorter, f"training.precision={precision}"))
    assert all(math.isfinite(loss) for loss in losses(run))
    assert all(bool(value.isfinite().all()) for value in weights(run).values())


@pytest.mark.slow
class TestCompilation:
    def test_a_step_is_learned_with_about_the_same_loss(self, tmp_path):
        overrides = (*GENTLE, "scenario.split=offline", "training.epochs=1")
        plain = learn(tmp_path / "plain", tiny_recipe("mib", *overrides))
        compiled = learn(tmp_path / "compiled", tiny_recipe("mib", *overrides, "training.compile=true"))
        assert losses(compiled) == pytest.approx(losses(plain), rel=0.02)

    def test_a_compiled_segmenter_grows_and_teaches(self, tmp_path, reference, monkeypatch):
        # captured but not turned into machine code, which takes minutes over two steps
        capture = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda self: capture(self, backend="eager"))
        run = learn(tmp_path / "run", tiny_recipe("mib", *GENTLE, "training.compile=true"))
        assert losses(run) == pytest.approx(reference, rel=0.02)


def test_automatic_mixed_precision_is_single_precision_on_a_cpu(tmp_path, reference):
    run = learn(tmp_path / "run", tiny_recipe("mib", *GENTLE, "training.precision=amp", "training.accelerator=cpu"))
    assert losses(run) == reference


def test_half_precision_is_really_computed_in_half(tmp_path, monkeypatch):
    seen = set()
    plain = GrowingClassifier.forward

    def watched(self, features):
        logits = plain(self, features)
        seen.add((torch.is_grad_enabled(), logits.dtype))
        return logits

    monkeypatch.setattr(GrowingClassifier, "forward", watched)
    learn(tmp_path / "run", tiny_recipe("mib", "training.precision=16-mixed", "training.epochs=1"))
    assert seen == {(True, torch.float16), (False, torch.float16), (False, torch.float32)}  # student, teacher, evaluation


@dataclass(frozen=True)
class Loud(Finetune):
    """Its gradients are too large for float16 at the scale with which training begins."""

    def losses(self, batch, student, teacher, context):
        return {name: 1000 * value for name, value in super().losses(batch, student, teacher, context).items()}


def test_the_gradient_scale_is_part_of_a_resume(tmp_path):
    recipe = tiny_recipe("finetune", *GENTLE, "training.precision=16-mixed")
    whole = learn(tmp_path / "whole", recipe, method=Loud())
    interrupted(tmp_path / "cut", recipe, "updated", 6, method=Loud())
    assert Run(tmp_path / "cut").load_state(0).scaler["scale"] < 2**16
    assert same(weights(learn(tmp_path / "cut", recipe, method=Loud())), weights(whole))

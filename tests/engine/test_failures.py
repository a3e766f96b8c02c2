"""When training goes wrong, the message says where, and what was saved stays."""

import re
from dataclasses import dataclass, field

import pytest
import torch

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from tests.engine.runs import learn, lines, same, tiny_recipe, weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", tiny_recipe("finetune"))


@pytest.mark.parametrize(("suffix", "step"), [("", 0), ("_later", 1)])
def test_a_loss_that_is_not_finite_says_where_and_on_what(tmp_path, suffix, step):
    factors = f"training.lr_factors{suffix}={{backbone: 1000, head: 1000, classifier: 1000}}"
    with pytest.raises(ContsegError) as caught:
        learn(tmp_path / "run", tiny_recipe("finetune", f"training.lr{suffix}=1000", factors))
    message = str(caught.value)
    assert re.match(rf"loss is not finite at step {step}, epoch \d, batch [1-9]\d* \(cross_entropy = ", message)
    samples = message.split("; samples ")[1].split(";")[0].split(", ")
    assert len(samples) == 10
    assert all(name.startswith("train/") for name in samples)
    assert message.endswith(f"and a lower rate, such as training.lr{suffix}=1e+02")
    assert "\n" not in message


@dataclass(frozen=True)
class Stumbling(Finetune):
    """Its n-th loss is infinite."""

    at: int = 0
    seen: list[int] = field(default_factory=list, compare=False)

    def losses(self, batch, student, teacher, context):
        self.seen.append(1)
        terms = super().losses(batch, student, teacher, context)
        return {name: value / (0 if len(self.seen) == self.at else 1) for name, value in terms.items()}


@pytest.mark.parametrize("at", [2, 8, 13, 16])  # the last batches of a step are looked at, too
def test_the_run_goes_on_from_the_last_whole_epoch(tmp_path, whole, at):
    with pytest.raises(ContsegError, match=r"loss is not finite .* \(cross_entropy = inf\)"):
        learn(tmp_path / "run", tiny_recipe("finetune"), method=Stumbling(at=at))
    run = Run(tmp_path / "run")
    step, epoch = divmod((at - 1) // 4, 2)
    state = run.load_state(step)
    assert (state.epochs_done if state else 0) == epoch
    assert lines(run, "epoch") == lines(whole, "epoch")[: 2 * step + epoch]
    assert same(weights(learn(run.folder, tiny_recipe("finetune"), method=Stumbling())), weights(whole))


def test_an_image_that_breaks_during_training_is_named_and_can_be_replaced(tmp_path, make_folder):
    root = make_folder(24)
    recipe = tiny_recipe(
        "finetune", "data.dataset=folder", f"data.path={root}", "data.options={}", "scenario.split=2-1", "training.batch=4"
    )
    image = root / "images" / "003.png"
    good = image.read_bytes()
    image.write_bytes(good[:80])
    with pytest.raises(ContsegError, match=r"cannot be read as an image") as caught:
        learn(tmp_path / "run", recipe)
    assert str(image) in str(caught.value)
    image.write_bytes(good)
    assert learn(tmp_path / "run", recipe).summary()["steps"] == 2


def test_a_batch_that_does_not_divide_over_the_ranks_is_an_error(tmp_path):
    with pytest.raises(ContsegError, match=r"training\.batch: 10 images do not divide over 3 ranks"):
        learn(tmp_path / "run", tiny_recipe("finetune", "training.devices=3"))


@dataclass(frozen=True)
class Poisoned(Finetune):
    """Its loss is not a number from the n-th pass on; keeps the weights after every update."""

    at: int = 0
    passes: list[int] = field(default_factory=list, compare=False)
    updates: list[dict] = field(default_factory=list, compare=False)
    students: list[torch.nn.Module] = field(default_factory=list, compare=False)

    def prepare(self, segmenter, step):
        self.students.append(segmenter)

    def losses(self, batch, student, teacher, context):
        self.passes.append(1)
        terms = super().losses(batch, student, teacher, context)
        return {name: value * float("nan") if len(self.passes) >= self.at else value for name, value in terms.items()}

    def after_update(self, context):
        self.updates.append({name: value.clone() for name, value in context.student.named_parameters()})


@pytest.mark.parametrize("options", [(), ("training.batch=5", "training.accumulate=2"), ("training.precision=16-mixed",)])
def test_a_loss_that_is_not_finite_does_not_change_the_weights(tmp_path, options):
    method = Poisoned(at=6)
    with pytest.raises(ContsegError, match=r"loss is not finite .* batch 5 \(cross_entropy = nan\)"):
        learn(tmp_path / "run", tiny_recipe("finetune", "scenario.split=offline", *options), method=method)
    assert same(dict(method.students[0].named_parameters()), method.updates[-1])
    assert len(method.updates) == (2 if "training.accumulate=2" in options else 5)

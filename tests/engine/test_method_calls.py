"""What the engine promises to a method: which calls, when, with what."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from contseg.methods.method import Method
from contseg.models.segmenter import Segmenter
from tests.engine.runs import distance, interrupted, learn, same, tiny_recipe, weights

TWO_UPDATES = ("training.epochs=1", "training.batch=20")


@dataclass(frozen=True)
class Recording(Finetune):
    """Plain cross-entropy that writes down every call; `look` is shown the arguments of each."""

    name = "recording"
    needs_teacher = True
    taps = ("stage2", "logits")

    calls: list[str] = field(default_factory=list, compare=False)
    look: Callable[..., Any] = field(default=lambda call, *arguments: None, compare=False)

    def _saw(self, call: str, *arguments: Any) -> None:
        self.calls.append(call)
        self.look(call, *arguments)

    def prepare(self, segmenter, step):
        self._saw("prepare", segmenter, step)

    def parameter_groups(self, segmenter, step):
        self._saw("parameter_groups", segmenter, step)
        return super().parameter_groups(segmenter, step)

    def before_step(self, context):
        self._saw("before_step", context)

    def relabel(self, batch, teacher, context):
        self._saw("relabel", batch, teacher, context)
        return batch

    def losses(self, batch, student, teacher, context):
        self._saw("losses", batch, student, teacher, context)
        return super().losses(batch, student, teacher, context)

    def after_backward(self, context):
        self._saw("after_backward", context)

    def after_update(self, context):
        self._saw("after_update", context)

    def after_epoch(self, context):
        self._saw("after_epoch", context)

    def after_step(self, context):
        self._saw("after_step", context)


START, EPOCH, END = ["prepare", "parameter_groups", "before_step"], ["after_epoch"], ["after_step"]
PASS, UPDATE = ["relabel", "losses"], ["after_backward", "after_update"]
EXAMPLES = 4 * ["relabel"]
"""Of a later step, for the report."""


def recorded(folder, look=lambda call, *arguments: None, *overrides: str) -> list[str]:
    method = Recording(look=look)
    learn(folder, tiny_recipe("finetune", *TWO_UPDATES, *overrides), method=method)
    return method.calls


class TestOrder:
    def test_calls_come_in_the_order_of_the_contract(self, tmp_path):
        updates = 2 * (PASS + UPDATE)
        assert recorded(tmp_path / "run") == [
            *START, *updates, *EPOCH, *END, *START, *updates, *EPOCH, *EXAMPLES, *END,
        ]  # fmt: skip

    def test_passes_are_gathered_into_one_update(self, tmp_path):
        calls = recorded(tmp_path / "run", Recording().look, "training.batch=10", "training.accumulate=2")
        updates = 2 * (PASS + PASS + UPDATE)
        assert calls == [*START, *updates, *EPOCH, *END, *START, *updates, *EPOCH, *EXAMPLES, *END]

    def test_preparation_is_repeated_at_resume_but_the_look_before_the_step_is_not(self, tmp_path):
        recipe, method = tiny_recipe("finetune", "training.epochs=2", "training.batch=20"), Recording()
        interrupted(tmp_path / "run", recipe, "updated", 3, method=Recording())  # in the second epoch of step 0
        learn(tmp_path / "run", recipe, method=method)
        assert method.calls[:4] == ["prepare", "parameter_groups", "relabel", "losses"]
        assert method.calls.count("before_step") == 1  # of step 1


class TestWhatAMethodSees:
    def test_surgery_comes_after_growth(self, tmp_path):
        def look(call, *arguments):
            if call == "prepare":
                segmenter, step = arguments
                assert sum(segmenter.widths) == step.seen_count

        recorded(tmp_path / "run", look)

    def test_the_teacher_is_the_frozen_segmenter_of_the_step_before(self, tmp_path):
        teachers = []

        def look(call, *arguments):
            if call in ("before_step", "after_step"):
                context = arguments[-1]
                teachers.append(context.teacher)
                if context.teacher is not None:
                    frozen = not any(parameter.requires_grad for parameter in context.teacher.parameters())
                    assert frozen
                    assert not context.teacher.training
                    kept.append({name: value.clone() for name, value in context.teacher.state_dict().items()})

        kept: list[dict] = []
        run = learn(tmp_path / "run", tiny_recipe("finetune", *TWO_UPDATES), method=Recording(look=look))
        assert teachers[:2] == [None, None]
        assert len(kept) == 2
        assert all(same(state, weights(run, step=0)) for state in kept)

    def test_taps_are_asked_for_when_there_is_a_teacher(self, tmp_path):
        seen = []

        def look(call, *arguments):
            if call == "losses":
                _, student, teacher, context = arguments
                seen.append((context.step.index, tuple(student.features), tuple(teacher.features) if teacher else None))

        recorded(tmp_path / "run", look)
        assert set(seen) == {(0, (), None), (1, Recording.taps, Recording.taps)}

    def test_the_teacher_answers_without_gradient(self, tmp_path):
        def look(call, *arguments):
            if call == "losses" and arguments[2] is not None:
                assert not arguments[2].logits.requires_grad
                assert arguments[1].logits.requires_grad

        recorded(tmp_path / "run", look)

    def test_the_loader_passes_once_over_the_training_set_drawn_as_in_no_epoch(self, tmp_path):
        passes, epochs = {}, {}

        def look(call, *arguments):
            context = arguments[-1]
            if call == "before_step":
                passes[context.step.index] = list(context.loader)
                assert not context.epoch
            if call == "losses":
                epochs.setdefault(context.step.index, []).append(arguments[0])

        recorded(tmp_path / "run", look)
        for step, batches in passes.items():
            names = [name for batch in batches for name in batch.names]
            assert len(names) == len(set(names)) == 40
            assert names != [name for batch in epochs[step] for name in batch.names]

    @pytest.mark.parametrize(
        ("batch", "accumulate", "passed"), [(10, 1, 40), (10, 2, 40), (20, 2, 40), (15, 2, 30), (50, 1, 50)], ids=str
    )
    def test_the_loader_has_whole_updates_of_the_45_images_and_repeats_some_to_fill_one(
        self, tmp_path, batch, accumulate, passed
    ):
        counts = {}

        def look(call, *arguments):
            if call == "before_step" and arguments[-1].step.index == 0:
                batches = list(arguments[-1].loader)
                counts.update(sizes={len(one.names) for one in batches}, images=sum(len(one.names) for one in batches))

        recorded(tmp_path / "run", look, f"training.batch={batch}", f"training.accumulate={accumulate}")
        assert counts == {"sizes": {batch}, "images": passed}

    def test_draws_follow_from_the_iteration(self, tmp_path):
        def drawn(folder):
            values = []

            def look(call, *arguments):
                if call == "losses":
                    values.append(float(torch.rand(1, generator=arguments[-1].generator)))

            recorded(folder, look)
            return values

        first = drawn(tmp_path / "one")
        assert len(set(first)) == 4
        assert drawn(tmp_path / "two") == first

    def test_a_method_without_a_teacher_is_given_none(self, tmp_path):
        @dataclass(frozen=True)
        class Alone(Recording):
            needs_teacher = False

        asked = []
        method = Alone(look=lambda call, *arguments: asked.append(arguments[2]) if call == "losses" else None)
        learn(tmp_path / "run", tiny_recipe("finetune", *TWO_UPDATES), method=method)
        assert asked == [None] * 4

    def test_the_caller_keeps_its_random_numbers(self, tmp_path):
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        recorded(tmp_path / "run")
        assert torch.equal(torch.rand(2), expected)


class TestRelabel:
    def test_final_labels_are_what_the_losses_and_the_segmenter_see(self, tmp_path, monkeypatch):
        @dataclass(frozen=True)
        class AllIgnoredButOne(Finetune):
            name = "relabelling"

            def relabel(self, batch: Any, teacher: Any, context: Any) -> Any:
                labels = torch.full_like(batch.labels, 255)
                labels[:, 0, 0] = 1
                return batch.relabelled(labels)

            def losses(self, batch: Any, student: Any, teacher: Any, context: Any) -> dict:
                seen.append(batch.labels)
                return super().losses(batch, student, teacher, context)

        seen: list[torch.Tensor] = []
        monkeypatch.setattr(Segmenter, "observe", lambda self, output, labels, ranks, generator: seen.append(labels))
        learn(tmp_path / "run", tiny_recipe("finetune", *TWO_UPDATES), method=AllIgnoredButOne())
        assert len(seen) == 8
        assert all(set(labels.unique().tolist()) == {1, 255} for labels in seen)


def test_every_call_of_a_method_is_optional(tmp_path):
    @dataclass(frozen=True)
    class Bare(Method):
        name = "bare"

    run = learn(tmp_path / "bare", tiny_recipe("finetune", *TWO_UPDATES), method=Bare())
    plain = learn(tmp_path / "plain", tiny_recipe("finetune", *TWO_UPDATES), method=Finetune())
    assert same(weights(run), weights(plain)), "the default is fine-tuning"


def test_the_recorder_learns_like_the_method_it_records(tmp_path):
    """The calls are all optional: with them or without, the weights are the same."""
    recipe = tiny_recipe("finetune", *TWO_UPDATES)
    recorded_run = learn(tmp_path / "one", recipe, method=Recording())
    plain_run = learn(tmp_path / "two", recipe)
    assert distance(weights(recorded_run), weights(plain_run)) < 1e-6


@pytest.mark.parametrize("tap", ["stage9"])
def test_a_tap_that_the_network_lacks_is_named(tmp_path, tap):
    @dataclass(frozen=True)
    class Asking(Recording):
        taps = ("stage1", tap)

    with pytest.raises(ContsegError, match=f"tap '{tap}': resnet18"):
        learn(tmp_path / "run", tiny_recipe("finetune", *TWO_UPDATES), method=Asking())

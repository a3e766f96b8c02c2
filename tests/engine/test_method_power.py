"""What a method may do to training: gradients, groups, terms, auxiliary outputs, state."""

from dataclasses import dataclass, field

import pytest
import torch

from contseg.engine.randomness import GROW, derived_seed
from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from contseg.models.segmenter import AuxiliaryOutput, Segmenter
from tests.engine.runs import interrupted, learn, lines, tiny_recipe, weights

ONE_STEP = ("scenario.split=offline", "training.epochs=1", "training.momentum=0.0", "training.weight_decay=0.0")


def started(recipe) -> dict[str, torch.Tensor]:
    """The parameters with which step 0 begins."""
    torch.manual_seed(derived_seed(GROW, recipe.training.seed, 0))
    return dict(Segmenter(recipe.network, [11]).named_parameters())


def moved(folder, method, *overrides: str) -> set[str]:
    """The parts of the segmenter whose parameters differ from the start after one step of training."""
    recipe = tiny_recipe("finetune", *ONE_STEP, *overrides)
    after = weights(learn(folder, recipe, method=method), step=0)
    return {name.split(".")[0] for name, value in started(recipe).items() if not torch.equal(value, after[name])}


@dataclass(frozen=True)
class Measuring(Finetune):
    """Keeps the gradient of every update."""

    gradients: list[torch.Tensor] = field(default_factory=list, compare=False)

    def after_backward(self, context):
        self.gradients.append(torch.cat([parameter.grad.flatten() for parameter in context.student.parameters()]))


class TestGradients:
    def test_without_interference_every_part_moves(self, tmp_path):
        assert moved(tmp_path / "run", Finetune()) == {"backbone", "head", "classifier"}

    @pytest.mark.parametrize("precision", ["'32'", "16-mixed"])
    def test_a_method_may_change_them_before_the_update(self, tmp_path, precision):
        @dataclass(frozen=True)
        class HeadOnly(Finetune):
            def after_backward(self, context):
                for name, parameter in context.student.named_parameters():
                    if not name.startswith("head"):
                        parameter.grad.zero_()

        assert moved(tmp_path / "run", HeadOnly(), f"training.precision={precision}") == {"head"}

    def test_they_are_of_the_same_size_under_gradient_scaling(self, tmp_path):
        plain, scaled = Measuring(), Measuring()
        learn(tmp_path / "32", tiny_recipe("finetune", *ONE_STEP), method=plain)
        learn(tmp_path / "16", tiny_recipe("finetune", *ONE_STEP, "training.precision=16-mixed"), method=scaled)
        assert float(scaled.gradients[0].norm()) == pytest.approx(float(plain.gradients[0].norm()), rel=0.1)

    @pytest.mark.parametrize(("batch", "passes"), [(2, 2), (1, 4)])
    def test_passes_that_are_gathered_give_the_gradient_of_the_large_batch(self, tmp_path, monkeypatch, batch, passes):
        # with running statistics, so that an image does not feel its neighbours
        monkeypatch.setattr(Segmenter, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
        whole, parts = Measuring(), Measuring()
        large = learn(tmp_path / "one", tiny_recipe("finetune", *ONE_STEP, "training.batch=4"), method=whole)
        overrides = (*ONE_STEP, f"training.batch={batch}", f"training.accumulate={passes}")
        small = learn(tmp_path / "two", tiny_recipe("finetune", *overrides), method=parts)
        assert len(whole.gradients) == len(parts.gradients) == 18  # updates: 73 images, 4 at a time
        torch.testing.assert_close(parts.gradients[0], whole.gradients[0], rtol=1e-3, atol=1e-6)
        assert lines(small, "epoch")[0]["loss"] == pytest.approx(lines(large, "epoch")[0]["loss"], rel=1e-3)


class TestParameterGroups:
    def test_only_what_is_named_learns(self, tmp_path):
        @dataclass(frozen=True)
        class ClassifierOnly(Finetune):
            def parameter_groups(self, segmenter, step):
                return [{"params": list(segmenter.classifier.parameters())}]

        assert moved(tmp_path / "run", ClassifierOnly()) == {"classifier"}

    def test_a_factor_of_zero_holds_a_group_still(self, tmp_path):
        @dataclass(frozen=True)
        class FrozenBackbone(Finetune):
            def parameter_groups(self, segmenter, step):
                rest = [*segmenter.head.parameters(), *segmenter.classifier.parameters()]
                return [{"params": list(segmenter.backbone.parameters()), "lr_factor": 0.0}, {"params": rest}]

        assert moved(tmp_path / "run", FrozenBackbone()) == {"head", "classifier"}

    def test_what_a_method_freezes_in_its_surgery_stays(self, tmp_path):
        @dataclass(frozen=True)
        class FrozenHead(Finetune):
            def prepare(self, segmenter, step):
                segmenter.head.requires_grad_(False)

        assert moved(tmp_path / "run", FrozenHead()) == {"backbone", "classifier"}

    def test_what_it_freezes_in_one_step_learns_in_the_next(self, tmp_path):
        @dataclass(frozen=True)
        class FrozenAtFirst(Finetune):
            def prepare(self, segmenter, step):
                segmenter.head.requires_grad_(step.index > 0)

        run = learn(tmp_path / "run", tiny_recipe("finetune", "training.epochs=1"), method=FrozenAtFirst())
        before, after = weights(run, 0), weights(run, 1)
        assert all(not torch.equal(before[name], after[name]) for name in before if name.startswith("head.branches."))


class TestTerms:
    @dataclass(frozen=True)
    class Stuck(Finetune):
        def losses(self, batch, student, teacher, context):
            return super().losses(batch, student, teacher, context) | {"stuck": student.logits.detach().mean()}

    def test_one_that_reaches_no_parameter_is_an_error_that_names_it(self, tmp_path):
        with pytest.raises(ContsegError, match=r"method finetune: term 'stuck' reaches no trainable parameter at step 0"):
            learn(tmp_path / "run", tiny_recipe("finetune", *ONE_STEP), method=self.Stuck())

    def test_unless_it_is_declared_inert(self, tmp_path):
        @dataclass(frozen=True)
        class Declared(self.Stuck):
            inert_terms = frozenset({"stuck"})

        (line,) = lines(learn(tmp_path / "run", tiny_recipe("finetune", *ONE_STEP), method=Declared()), "epoch")
        assert set(line["terms"]) == {"cross_entropy", "stuck"}
        assert line["loss"] == pytest.approx(sum(line["terms"].values()))


class TestAuxiliaryOutputs:
    def test_each_is_supervised_by_the_method_times_its_weight(self, tmp_path, monkeypatch):
        plain = Segmenter.forward

        def with_auxiliary(self, images, taps=()):
            output = plain(self, images, taps)
            if self.training:
                output.auxiliary = [
                    AuxiliaryOutput(output.logits, name="same", weight=0.25),
                    AuxiliaryOutput(0.5 * output.logits, name="half"),
                ]
            return output

        @dataclass(frozen=True)
        class Halving(Finetune):
            def supervise(self, output, batch, context):
                names.add(getattr(output, "name", "main"))
                return super().supervise(output, batch, context) / 2

        names: set = set()
        monkeypatch.setattr(Segmenter, "forward", with_auxiliary)
        (line,) = lines(learn(tmp_path / "run", tiny_recipe("finetune", *ONE_STEP), method=Halving()), "epoch")
        terms = line["terms"]
        assert set(terms) == {"cross_entropy", "auxiliary_same", "auxiliary_half"}
        assert terms["auxiliary_same"] == pytest.approx(0.25 * terms["cross_entropy"], rel=1e-5)
        assert names == {"main", "same", "half"}  # a method may treat them differently


class TestState:
    @dataclass(frozen=True)
    class Counting(Finetune):
        """Counts its updates in its state."""

        def after_update(self, context):
            self.state["updates"] = self.state.get("updates", torch.tensor(0)) + 1

    @pytest.mark.parametrize("update", [2, 6, 11])  # in the first epoch, in the second, in step 1
    def test_it_survives_an_interruption(self, tmp_path, update):
        recipe = tiny_recipe("finetune")
        interrupted(tmp_path / "run", recipe, "updated", update, method=self.Counting())
        run = learn(tmp_path / "run", recipe, method=self.Counting())
        assert int(run.load_state(0).method["updates"]) == 8
        assert int(run.load_state(1).method["updates"]) == 16

    def test_a_method_that_is_used_again_begins_without_memory(self, tmp_path):
        method = self.Counting()
        for name in ("one", "two"):
            run = learn(tmp_path / name, tiny_recipe("finetune"), method=method)
            assert int(run.load_state(1).method["updates"]) == 16

    def test_it_comes_back_with_a_recalled_first_step(self, tmp_path):
        recipe = tiny_recipe("finetune")
        learn(tmp_path / "one", recipe, method=self.Counting(), cache=tmp_path / "cache")
        run = learn(tmp_path / "two", recipe, method=self.Counting(), cache=tmp_path / "cache")
        assert int(run.load_state(1).method["updates"]) == 16

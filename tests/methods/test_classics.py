"""Frozen, LwF, LwF-MC, ILT, EWC, PI and RW: what each holds on to."""

import copy
import io
from dataclasses import replace

import pytest
import torch

from contseg.errors import ContsegError
from contseg.losses.cross_entropy import cross_entropy, sigmoid_cross_entropy
from contseg.losses.distillation import distillation
from contseg.losses.regularisers import penalty
from contseg.losses.soft_targets import sigmoid_distillation
from contseg.methods.ewc import EWC
from contseg.methods.finetune import Finetune
from contseg.methods.frozen import Frozen
from contseg.methods.ilt import ILT
from contseg.methods.lwf import LwF
from contseg.methods.lwf_mc import LwFMC
from contseg.methods.method import StepContext
from contseg.methods.pi import PI
from contseg.methods.registry import make_method
from contseg.methods.rw import RW
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step

PENALTIES = {"ewc": EWC, "pi": PI, "rw": lambda **given: RW(interval=1, **given)}
FIRST = [0, 0, 1, 1, 2]
"""Labels of step 0: what stands for each of the labels 0 .. 4 of a later batch."""


@pytest.fixture(params=PENALTIES)
def make_penalty(request):
    return PENALTIES[request.param]


@pytest.fixture
def lessons(give_lesson, batch):
    """A lesson of step 1 for a method that has learned step 0 on three batches."""

    def teach(method):
        first = batch.relabelled(batch.labels.where(batch.labels != 3, 1))
        give_lesson(method, 0).learn([first, first, first])
        return give_lesson(method, 1)

    return teach


def by_domain(lesson):
    """The lesson of step 0 as one of a later step that brings no class, with its student as teacher."""
    student, step = lesson.context.student, lesson.context.step
    step = replace(step, index=1, old_classes=step.new_classes, new_classes=())
    lesson.context = StepContext.for_loop(student, copy.deepcopy(student), step, lesson.method, lesson.context.loader)
    lesson.method.prepare(student, step)
    lesson.method.before_step(lesson.context)
    return lesson


def gradients(student, seed):
    """Made-up gradients of every parameter, as after a backward pass."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in student.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def updated(lesson, seeds, lr=0.01):
    """Updates with made-up gradients, as the engine makes them."""
    student = lesson.context.student
    for seed in seeds:
        gradients(student, seed)
        lesson.method.after_backward(lesson.context)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter -= lr * parameter.grad
    return {name: value.clone() for name, value in student.state_dict().items()}


@torch.no_grad()
def far_from_important(lesson):
    """How far the weights have moved from those before the step, each times its importance."""
    held = lesson.method.pulled(dict(lesson.context.student.named_parameters()))
    anchors, strengths = (lesson.method.recall(kind, held) for kind in ("anchor", "strength"))
    return float(penalty(list(held.values()), anchors, strengths))


class TestWeightPenalties:
    def test_important_weights_are_pulled_towards_the_old_ones(self, make_penalty, lessons):
        ways = []
        for importance in (0.0, 20.0):
            lesson = lessons(make_penalty(importance=importance))
            updated(lesson, range(8))
            ways.append(far_from_important(lesson))
        assert 0 < ways[1] < 0.8 * ways[0]

    def test_step_0_is_learned_as_by_fine_tuning(self, make_penalty, give_lesson, batch):
        first = batch.relabelled(batch.labels.where(batch.labels != 3, 1))
        ends = []
        for method in (make_penalty(), Finetune()):
            lesson = give_lesson(method, 0)
            lesson.learn([first, first])
            ends.append(lesson.context.student.state_dict())
        assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())

    def test_the_penalty_is_nothing_when_a_step_begins(self, make_penalty, lessons):
        lesson = lessons(make_penalty())
        assert lesson.method.pulled(dict(lesson.context.student.named_parameters()))
        assert far_from_important(lesson) == 0

    def test_the_estimate_of_importance_does_not_see_the_penalty(self, make_penalty, lessons):
        states = []
        for importance in (0.0, 500.0):
            lesson = lessons(make_penalty(importance=importance))
            student = lesson.context.student
            with torch.no_grad():
                for parameter in student.parameters():
                    parameter += 0.1  # so that there is a penalty
            for seed in (1, 2):
                gradients(student, seed)
                lesson.method.after_backward(lesson.context)
            states.append(lesson.method.state_dict())
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    def test_new_tensors_are_free_and_the_others_are_not(self, make_penalty, lessons):
        lesson = lessons(make_penalty())
        student = lesson.context.student
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += 0.1
        gradients(student, 1)
        before = {name: p.grad.clone() for name, p in student.named_parameters()}
        lesson.method.after_backward(lesson.context)
        moved = {name for name, p in student.named_parameters() if not torch.equal(p.grad, before[name])}
        assert not [name for name in moved if name.startswith("classifier.steps.1")]
        assert {"classifier.steps.0.weight", "backbone.conv1.weight"} <= moved

    def test_what_was_new_is_held_in_the_step_after(self, make_penalty, lessons, give_lesson, batch):
        lesson = lessons(make_penalty())
        lesson.learn([batch, batch])
        again = give_lesson(lesson.method, 1)
        assert "classifier.steps.1.weight" in again.method.pulled(dict(again.context.student.named_parameters()))

    def test_a_state_that_was_saved_in_the_middle_goes_on_bit_for_bit(self, make_penalty, lessons):
        lesson = lessons(make_penalty(importance=20.0))
        updated(lesson, (1, 2))
        file = io.BytesIO()
        torch.save(lesson.method.state_dict(), file)
        file.seek(0)
        other = copy.copy(lesson)
        other.context = replace(lesson.context, student=copy.deepcopy(lesson.context.student))
        other.method = make_penalty(importance=20.0)
        other.method.load_state_dict(torch.load(file, weights_only=True))
        ends = []
        for each in (lesson, other):
            end = updated(each, (3, 4, 5))
            each.method.after_step(each.context)
            ends.append(end | each.method.state_dict())
        assert ends[0].keys() == ends[1].keys()
        assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())

    def test_between_steps_only_importances_are_kept(self, make_penalty, lessons, batch):
        lesson = lessons(make_penalty())
        lesson.learn([batch])
        kinds = {"ewc": {"fisher"}, "pi": {"score"}, "rw": {"fisher", "score"}}[lesson.method.name]
        assert {key.partition(".")[0] for key in lesson.method.state} == kinds

    def test_parameters_without_a_gradient_are_left_alone(self, make_penalty, lessons):
        lesson = lessons(make_penalty())
        student, frozen = lesson.context.student, "backbone.conv1.weight"
        with torch.no_grad():
            student.get_parameter(frozen).add_(0.1)
        gradients(student, 1)
        student.get_parameter(frozen).grad = None
        before = {key: value for key, value in lesson.method.state_dict().items() if key.endswith(frozen)}
        lesson.method.after_backward(lesson.context)
        assert student.get_parameter(frozen).grad is None
        assert all(torch.equal(lesson.method.state[key], value) for key, value in before.items())

    def test_an_update_that_overflowed_leaves_no_trace_in_the_importances(self, make_penalty, lessons):
        lesson = lessons(make_penalty())
        updated(lesson, (1,))
        before = lesson.method.state_dict()
        gradients(lesson.context.student, 2)
        lesson.context.student.get_parameter("backbone.conv1.weight").grad[0, 0, 0, 0] = torch.inf
        lesson.method.after_backward(lesson.context)
        for kind in ("fisher", "path"):
            found = {key: value for key, value in lesson.method.state.items() if key.startswith(f"{kind}.")}
            assert all(torch.equal(value, before[key]) for key, value in found.items())

    def test_its_first_step_is_shared_only_by_who_remembers_the_same(self, make_penalty):
        method = make_penalty()
        assert method.first_step_key()
        assert replace(method, importance=1.0).first_step_key() == method.first_step_key()
        others = [make_method(name).first_step_key() for name in PENALTIES if name != method.name]
        assert method.first_step_key() not in others
        if hasattr(method, "alpha"):
            assert replace(method, alpha=0.5).first_step_key() != method.first_step_key()

    def test_a_step_by_domain_holds_all_weights(self, make_penalty, give_lesson, batch):
        first = batch.relabelled(batch.labels.where(batch.labels != 3, 1))
        lesson = give_lesson(make_penalty(), 0)
        lesson.learn([first, first])
        by_domain(lesson)
        learning = dict(lesson.context.student.named_parameters())
        assert lesson.method.pulled(learning).keys() == learning.keys()
        lesson.learn([first])


class TestAGivenFirstStep:
    """No update was made; the method looks at it afterwards."""

    @pytest.fixture
    def looked(self, give_lesson):
        def look(method):
            lesson = give_lesson(method, 0)
            context = lesson.context
            context.loader = [each.relabelled(each.labels.where(each.labels != 3, 1)) for each in context.loader]
            context.epochs = 0
            lesson.learn([])
            return lesson

        return look

    @pytest.mark.parametrize("method", [EWC(), RW()], ids=["ewc", "rw"])
    def test_the_fisher_information_is_the_mean_squared_gradient_over_one_pass(self, method, looked):
        lesson = looked(method)
        context, student = lesson.context, lesson.context.student.eval()
        expected = torch.zeros_like(student.backbone.conv1.weight)
        for batch in context.loader:
            student.zero_grad()
            logits = student(student.normalise(batch.images)).logits_at(batch.size)
            cross_entropy(logits, batch.labels).mean().backward()
            expected += student.backbone.conv1.weight.grad.square() / len(context.loader)
        assert torch.allclose(method.state["fisher.backbone.conv1.weight"], expected)
        assert {key.partition(".")[0] for key in method.state} == {"fisher"}
        method.state.clear()

    @pytest.mark.parametrize("method", [EWC(), RW()], ids=["ewc", "rw"])
    def test_looking_changes_neither_weights_nor_statistics_nor_gradients(self, method, give_lesson, looked):
        untouched = give_lesson(Finetune(), 0).context.student.state_dict()
        student = looked(method).context.student
        assert all(torch.equal(value, untouched[name]) for name, value in student.state_dict().items())
        assert all(parameter.grad is None for parameter in student.parameters())
        assert student.training
        method.state.clear()

    @pytest.mark.parametrize(("make", "holds"), [(EWC, True), (RW, True), (PI, False)])
    def test_the_next_step_holds_on_to_it_if_there_is_something_to_go_by(self, make, holds, looked, give_lesson):
        method = make()
        looked(method)
        lesson = give_lesson(method, 1)
        assert bool(method.pulled(dict(lesson.context.student.named_parameters()))) == holds
        updated(lesson, (1,))


class TestFrozen:
    @pytest.mark.parametrize("auxiliary", [False, True])
    def test_every_old_logit_stays_bit_equal_however_long_it_learns(self, auxiliary, give_lesson, batch):
        lesson = give_lesson(Frozen())
        torch.manual_seed(0)
        backbone, extra = {"name": "resnet18", "width": 4}, {"dropout": 0.0} if auxiliary else None
        options = NetworkOptions(backbone=backbone, head={"width": 8}, auxiliary=extra)
        student = Segmenter(options, [3])
        student.grow(1, "random")
        student.train()
        lesson.context.student = student
        lesson.method.prepare(student, lesson.context.step)
        images = student.normalise(batch.images)
        before = student(images)
        lesson.learn([batch] * 3, lr=1.0)
        after = student(images)
        assert torch.equal(after.logits[:, :3], before.logits[:, :3])
        assert not torch.equal(after.logits[:, 3:], before.logits[:, 3:])
        for now, then in zip(after.auxiliary, before.auxiliary, strict=True):
            assert torch.equal(now.logits[:, :3], then.logits[:, :3])

    def test_the_newest_step_of_every_classifier_learns_and_nothing_else(self, give_lesson):
        lesson = give_lesson(Frozen())
        torch.manual_seed(0)
        idrnet = {"attention_width": 8}
        options = NetworkOptions(backbone="resnet18", width=4, head="fcn", head_width=8, auxiliary=True, idrnet=idrnet)
        student = Segmenter(options, [3, 1]).train()
        lesson.method.prepare(student, lesson.context.step)
        learning = {name.rpartition(".")[0] for name, p in student.named_parameters() if p.requires_grad}
        assert learning == {"classifier.steps.1", "auxiliary.classifier.steps.1", "head.classifier_stage1.steps.1"}

    def test_everything_learns_at_step_0(self, give_lesson):
        lesson = give_lesson(Frozen(), 0)
        assert all(parameter.requires_grad for parameter in lesson.context.student.parameters())

    def test_a_step_without_a_new_class_is_refused_in_one_line(self):
        steps = [Step.of("abc"), Step.of("abcd", old=3), Step.of("abcd", old=4, index=2)]
        Frozen().check(NetworkOptions(), steps[:2])
        with pytest.raises(ContsegError, match=r"'frozen' only trains new classes, and step 2 has none; .*") as caught:
            Frozen().check(NetworkOptions(), steps)
        assert "\n" not in str(caught.value)


class TestDistillation:
    def test_lwf_adds_weighted_distillation_of_the_old_outputs(self, give_lesson, batch):
        lesson = give_lesson(LwF(distillation=7.0))
        student, teacher = lesson.forward(batch)
        terms = lesson.method.losses(batch, student, teacher, lesson.context)
        logits = student.logits_at(batch.size)
        assert torch.allclose(terms["cross_entropy"], cross_entropy(logits, batch.labels).mean())
        assert torch.allclose(terms["distillation"], 7 * distillation(logits, teacher.logits_at(batch.size)).mean())

    def test_lwf_mc_adds_the_teacher_weighted_by_the_number_of_old_classes(self, give_lesson, batch):
        lesson = give_lesson(LwFMC(distillation=7.0))
        student, teacher = lesson.forward(batch)
        terms = lesson.method.losses(batch, student, teacher, lesson.context)
        logits = student.logits_at(batch.size)
        assert torch.allclose(terms["cross_entropy"], sigmoid_cross_entropy(logits, batch.labels).mean())
        kept = sigmoid_distillation(logits, teacher.logits_at(batch.size)).mean()
        assert torch.allclose(terms["distillation"], 7 * 3 * kept)

    @pytest.mark.parametrize("targets", ["disjoint", "disjoint-background"])
    def test_disjoint_lwf_mc_has_one_term_in_which_labels_are_not_asked_for_old_classes(self, targets, give_lesson, batch):
        lesson = give_lesson(LwFMC(targets=targets))
        student, teacher = lesson.forward(batch)
        terms = lesson.method.losses(batch, student, teacher, lesson.context)
        otherwise = batch.relabelled(batch.labels.where(batch.labels != 0, 2))  # an old class in place of background
        changed = lesson.method.losses(otherwise, student, teacher, lesson.context)
        assert list(terms) == ["cross_entropy"]
        assert torch.equal(terms["cross_entropy"], changed["cross_entropy"]) == (targets == "disjoint")

    def test_disjoint_lwf_mc_believes_the_label_of_an_exemplar(self, give_lesson, exemplar):
        lesson = give_lesson(LwFMC(targets="disjoint"))
        student, teacher = lesson.forward(exemplar)
        logits = student.logits_at(exemplar.size)
        logits.retain_grad()
        sum(lesson.method.losses(exemplar, student, teacher, lesson.context).values()).backward()
        expected = (logits.detach()[:, 2].sigmoid() - 1) / exemplar.labels.numel()
        assert torch.allclose(logits.grad[:, 2], expected, atol=1e-9)

    def test_ilt_finds_no_distance_between_a_student_that_has_not_moved_and_its_teacher(self, give_lesson, batch):
        lesson = give_lesson(ILT())
        lesson.context.student.eval()
        assert lesson.terms(batch)["encoder"] == 0

    def test_ilt_compares_encoders_after_their_activation(self, give_lesson, batch):
        lesson = give_lesson(ILT(encoder=1.0))
        student, teacher = lesson.forward(batch)
        for said in (student, teacher):
            said.features["stage4"] = -torch.rand_like(said.features["stage4"])
        lesson.context.student.backbone.activate = torch.relu
        assert lesson.method.losses(batch, student, teacher, lesson.context)["encoder"] == 0

    @pytest.mark.parametrize("distance", ["squared", "cosine"])
    def test_ilt_may_look_at_old_positions_only(self, distance, give_lesson, batch):
        lesson = give_lesson(ILT(distance=distance, only_old=True))
        assert lesson.terms(batch)["encoder"] > 0
        assert lesson.terms(batch.relabelled(torch.full_like(batch.labels, 3)))["encoder"] == 0

    @pytest.mark.parametrize("method", [LwF(), LwFMC(), ILT(), ILT(distance="cosine", only_old=True)], ids=str)
    def test_a_step_by_domain_keeps_all_outputs(self, method, give_lesson, batch):
        lesson = by_domain(give_lesson(method, 0))
        first = batch.relabelled(batch.labels.where(batch.labels != 3, 1))
        terms = lesson.terms(first)
        assert {"cross_entropy", "distillation"} <= set(terms)
        assert all(torch.isfinite(value) for value in terms.values())
        lesson.learn([first])

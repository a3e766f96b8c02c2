"""What every method of the registry promises."""

import copy
import json
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from contseg.errors import ContsegError
from contseg.methods.ewf import EWF, fuse, fusion_share
from contseg.methods.finetune import Finetune
from contseg.methods.registry import hyper_parameters, make_method
from contseg.models.segmenter import SegmenterOutput
from tests.kinds import PIXELS

SMALL = {"cfsseg": {"expansion": 24}}
"""Of methods whose default takes long."""
CASES = [(name, SMALL.get(name, {})) for name in PIXELS] + [
    ("plop", {"variant": "released"}),
    ("mib", {"distillation": 100.0}),
    ("lwf-mc", {"targets": "disjoint"}),
    ("ilt", {"distance": "cosine", "only_old": True}),
    ("idec", {"variant": "released"}),
    ("idec", {"features": "stages"}),
    ("lag", {"variant": "released"}),
    ("sdr", {"variant": "released"}),
    ("sdr", {"on": "alone"}),
    ("sdr", {"on": "alone", "variant": "released"}),
    ("dkd", {"variant": "released"}),
    ("dkd", {"auxiliary": 0.0}),
    ("star", {"variant": "released"}),
    ("ucd", {"variant": "released"}),
    ("star", {"setting": "disjoint"}),
    ("adapter", {"variant": "released"}),
    ("adapter", {"setting": "disjoint", "every_class": False}),
    ("mib", {"fusion": "ewf"}),
    ("plop", {"variant": "released", "fusion": "ewf"}),
    ("ewc", {"fusion": "ewf", "fused_values": "moved"}),
    ("lag", {"fusion": "ewf"}),
    ("rcil", {"init": "preserving"}),
    ("reminder", {"variant": "released", "delta": 1.0}),
    ("mbs", {"variant": "released"}),
    ("mbs", {"guided": False, "fusion": "ewf"}),
    ("star", {"fusion": "ewf", "hold_old_classifiers": False}),
    ("gaussian", {"expansion": 0, "background": "distance"}),
    ("gaussian", {"tap": "stage3", "covariance": "frozen", "centres": 2}),
    ("barm", {"variant": "released"}),
    ("barm", {"fusion": "ewf"}),
    ("cfsseg", {"variant": "released", "expansion": 20}),
    ("cfsseg", {"expansion": 0, "weighting": "class-balanced", "threshold": None}),
]
VOID_IS_NEGATIVE = [("dkd", "released"), ("star", "released"), ("adapter", "released")]
LEARNS_FROM_OLD_LABELS = ["lwf", "lwf-mc", "ewc", "mib", "plop", "reminder", "sdr", "mbs"]


@pytest.fixture(params=CASES, ids=lambda case: " ".join([case[0], *map(str, case[1].values())]))
def method(request):
    name, changes = request.param
    return make_method(name, **changes)


class TestEveryMethod:
    @pytest.mark.parametrize("index", [0, 1])
    def test_terms_are_finite_scalars(self, method, give_lesson, batch, index):
        lesson = give_lesson(method, index)
        labels = batch if index else batch.relabelled(batch.labels.where(batch.labels != 3, 1))
        terms = lesson.terms(labels)
        assert terms
        for name, value in terms.items():
            assert value.shape == (), name
            assert torch.isfinite(value), name

    def test_every_term_reaches_the_student(self, method, give_lesson, batch):
        lesson = give_lesson(method)
        for name, value in lesson.terms(batch).items():
            if name in method.inert_terms:
                assert not value.requires_grad, name
                continue
            lesson.context.student.zero_grad()
            value.backward(retain_graph=True)
            assert any(p.grad is not None and p.grad.any() for p in lesson.context.student.parameters()), name

    def test_the_whole_objective_reaches_every_parameter_that_learns(self, method, give_lesson, batch):
        lesson = give_lesson(method)
        sum(lesson.terms(batch).values()).backward()
        learning = {id(p) for p in learned(method, lesson.context)}
        parameters = lesson.context.student.named_parameters()
        wrong = [name for name, p in parameters if id(p) in learning and (p.grad is None or not p.grad.isfinite().all())]
        assert wrong == []

    def test_nothing_reaches_the_teacher(self, method, give_lesson, batch):
        lesson = give_lesson(method)
        teacher = lesson.context.teacher
        if teacher is None:
            assert not method.needs_teacher
            return
        before = {name: value.clone() for name, value in teacher.state_dict().items()}
        sum(lesson.terms(batch).values()).backward()
        assert all(p.grad is None for p in teacher.parameters())
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())

    def test_the_batch_itself_is_left_as_it_was(self, method, give_lesson, batch):
        labels, images = batch.labels.clone(), batch.images.clone()
        give_lesson(method).terms(batch)
        assert torch.equal(batch.labels, labels)
        assert torch.equal(batch.images, images)

    def test_fully_ignored_labels_give_no_supervised_gradient(self, method, give_lesson, batch):
        lesson = give_lesson(method)
        batch = lesson.fitting(batch)
        logits = torch.randn(3, batch.annotated.shape[1], 64, 64, requires_grad=True)
        ignored = batch.relabelled(torch.full_like(batch.labels, 255), torch.ones(3))
        method.supervise(SegmenterOutput(logits), ignored, lesson.context).backward()
        assert bool(logits.grad.any()) == ((method.name, method.variant) in VOID_IS_NEGATIVE)

    def test_the_first_step_is_plain_cross_entropy_unless_its_key_says_otherwise(self, method, give_lesson, batch):
        if method.first_step_key():
            assert json.loads(json.dumps(method.first_step_key())) == method.first_step_key()
            return
        labels = batch.relabelled(batch.labels.where(batch.labels != 3, 1))
        terms, plain = (give_lesson(each, 0, method.name).terms(labels) for each in (method, Finetune()))
        assert list(terms) == ["cross_entropy"]
        assert torch.equal(terms["cross_entropy"], plain["cross_entropy"])

    def test_state_goes_into_a_new_method_which_then_does_the_same(self, method, give_lesson, batch):
        lesson = give_lesson(method)
        student, saved = lesson.context.student, copy.deepcopy(method.state_dict())
        start = copy.deepcopy(student.state_dict())

        def terms():
            student.load_state_dict(start)
            lesson.context.generator = torch.Generator().manual_seed(1)
            torch.manual_seed(1)
            return lesson.terms(batch)

        expected = terms()
        other = type(method)(**{field.name: getattr(method, field.name) for field in fields(method) if field.init})
        assert not other.state
        other.load_state_dict(saved)
        lesson.method = other
        for name, value in terms().items():
            assert torch.equal(value, expected[name]), name

    def test_hyper_parameters_make_an_equal_method(self, method):
        assert make_method(**hyper_parameters(method)) == method
        assert hyper_parameters(method)["name"] == method.name

    def test_hyper_parameters_are_frozen(self, method):
        for field in fields(method):
            with pytest.raises(FrozenInstanceError):
                setattr(method, field.name, 0)

    def test_two_methods_share_no_state(self, method):
        other = make_method(**hyper_parameters(method))
        method.state["something"] = torch.zeros(1)
        assert "something" not in other.state

    def test_an_unknown_hyper_parameter_is_told(self, method):
        with pytest.raises(ContsegError, match=rf"method\.strength: method '{method.name}' has no such hyper-parameter"):
            make_method(method.name, strength=3)
        with pytest.raises(ContsegError, match=r"method\.state: .* has no such hyper-parameter"):
            make_method(method.name, state={})

    @pytest.mark.parametrize("index", [0, 1])
    def test_all_trainable_parameters_are_in_one_group(self, method, give_lesson, index):
        context = give_lesson(method, index).context
        found = [id(parameter) for parameter in learned(method, context)]
        assert found
        assert sorted(found) == sorted(
            id(parameter) for parameter in context.student.parameters() if parameter.requires_grad
        )

    def test_what_it_learns_in_a_step_changes_what_it_says(self, method, give_lesson, batch):
        lesson = give_lesson(method)
        before = {name: value.clone() for name, value in lesson.context.student.named_parameters()}
        lesson.learn([batch, batch])
        if isinstance(method, EWF) and method.fused_values == "all":  # what did not learn is fused too
            old = lesson.context.previous.state_dict()
            fuse(old, before, fusion_share(lesson.context.step.old_count, lesson.context.step.new_count))
        learning = {id(p) for p in learned(method, lesson.context)}
        for name, parameter in lesson.context.student.named_parameters():
            assert torch.isfinite(parameter).all()
            if id(parameter) not in learning:
                assert torch.equal(parameter, before[name]), name
        assert any(not torch.equal(p, before[name]) for name, p in lesson.context.student.named_parameters())


def learned(method, context):
    """The parameters that the method gives to the optimiser."""
    return [p for group in method.parameter_groups(context.student, context.step) for p in group["params"]]


@pytest.mark.parametrize("name", LEARNS_FROM_OLD_LABELS)
def test_an_annotated_old_label_of_an_exemplar_pushes_its_logit_up(name, give_lesson, exemplar):
    method = make_method(name)
    lesson = give_lesson(method)
    _, teacher = lesson.forward(exemplar)
    labelled = method.relabel(exemplar, teacher, lesson.context)
    logits = torch.randn(3, 4, 64, 64, requires_grad=True)
    method.supervise(SegmenterOutput(logits), labelled, lesson.context).backward()
    assert (logits.grad[:, 2] < 0).all()
    assert (logits.grad[:, [0, 1, 3]] > 0).all()


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("mib", {"distillation": "much"}, r"method\.distillation: .* \(got 'much'\)"),
        ("plop", {"variant": "published"}, r"method\.variant: .*'paper' or 'released'"),
        ("plop", {"bins": 1.5}, r"method\.bins: "),
        ("plop", {"podd": 1.0}, r"method\.podd: .* did you mean 'pod'"),
        ("plopp", {}, r"method\.name: unknown method 'plopp'; did you mean 'plop'"),
    ],
)
def test_a_wrong_value_is_told_by_its_key(name, wrong, message):
    with pytest.raises(ContsegError, match=message):
        make_method(name, **wrong)

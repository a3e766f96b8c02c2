"""BARM: what it needs, what reaches which part, what counts as labelled, and what the released code does otherwise."""

import pytest
import torch
from torch import nn

from contseg.errors import ContsegError
from contseg.methods.barm import given_masks
from contseg.methods.registry import make_method
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.recipes.build import make_job
from contseg.scenarios.step import Step
from tests.engine.runs import learn, tiny_recipe, weights

TABLE = ["background", "cat", "dog", "fox"]
NETWORK = NetworkOptions(
    backbone={"name": "resnet18", "width": 4}, head="deeplabv3-barm", background="residual", decision="sigmoid"
)


class TestWhatItNeeds:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"background": "learned"}, r"network\.background: method 'barm' cannot .* set network\.background=residual"),
            ({"decision": "softmax"}, r"network\.decision: method 'barm' .* set network\.decision=sigmoid"),
        ],
    )
    def test_another_network_is_refused_in_one_line(self, changes, told):
        with pytest.raises(ContsegError, match=told) as caught:
            make_method("barm").check(NETWORK.changed(**changes), [Step.of(TABLE)])
        assert "\n" not in str(caught.value)

    def test_every_step_adds_classes_next_to_a_background(self):
        method = make_method("barm")
        method.check(NETWORK, [Step.of(TABLE), Step.of(TABLE, old=3)])
        with pytest.raises(ContsegError, match=r"step 1 adds none"):
            method.check(NETWORK, [Step.of(TABLE, old=4)])
        with pytest.raises(ContsegError, match=r"have no background"):
            method.check(NETWORK, [Step.of(Step.of(TABLE).table.without_background())])

    @pytest.mark.parametrize("name", ["finetune", "mib", "gaussian", "dkd"])
    def test_other_methods_need_one_classifier_for_background(self, tmp_path, name):
        with pytest.raises(ContsegError, match=rf"network\.background: method '{name}' cannot learn with residual"):
            make_job(tiny_recipe("barm", f"method={{name: {name}}}"), tmp_path)

    def test_it_learns_with_any_head(self, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("barm", "network.head=fcn", "training.epochs=1"))
        assert len(run.confusions()[1]) == 11


class TestWhatLearns:
    def test_labels_teach_the_new_classes_and_the_new_residual_only(self, give_lesson, batch):
        lesson = give_lesson(make_method("barm"))
        classifier = lesson.context.student.classifier
        lesson.terms(batch)["binary"].backward()
        gradients = [step[3].bias.grad for step in classifier.steps]
        assert gradients[0] is None or not gradients[0].any()
        assert gradients[1][0] != 0
        assert gradients[1][1:].all()

    @pytest.mark.parametrize("term", ["margin", "residual"])
    def test_margin_and_residual_teach_the_new_residual_only(self, give_lesson, batch, term):
        lesson = give_lesson(make_method("barm"))
        classifier = lesson.context.student.classifier
        lesson.terms(batch)[term].backward()
        assert classifier.steps[0][3].bias.grad is None or not classifier.steps[0][3].bias.grad.any()
        sign = 1 if term == "residual" else -1  # descent lowers it on objects, and raises it elsewhere
        assert sign * classifier.steps[1][3].bias.grad[0] > 0
        assert not classifier.steps[1][3].bias.grad[1:].any()

    def test_the_group_teaches_old_outputs_and_residuals_only(self, give_lesson, batch):
        lesson = give_lesson(make_method("barm"))
        lesson.terms(batch)["group"].backward()
        first, newest = lesson.context.student.classifier.steps
        assert first[3].bias.grad.all()
        assert newest[3].bias.grad is None or not newest[3].bias.grad.any()

    def test_old_branches_and_classifiers_learn_slowly(self, give_lesson):
        context = give_lesson(make_method("barm", old_factor=0.25)).context
        groups = make_method("barm", old_factor=0.25).parameter_groups(context.student, context.step)
        names = {id(parameter): name for name, parameter in context.student.named_parameters()}
        slow = [names[id(one)] for group in groups if group["lr_factor"] == 0.25 for one in group["params"]]
        assert slow == [f"classifier.steps.0.{name}" for name in ("0.weight", "3.weight", "3.bias")]

    def test_norms_are_frozen_and_dropout_is_active_in_later_steps(self, give_lesson):
        student = give_lesson(make_method("barm")).context.student
        student.train()
        assert not any(module.training for module in student.modules() if isinstance(module, nn.BatchNorm2d))
        assert all(module.training for module in student.modules() if isinstance(module, nn.Dropout))

    def test_terms_with_weight_0_are_omitted(self, give_lesson, batch):
        method = make_method("barm", margin=0.0, branch=0.0, group=0.0, residual=0.0)
        assert give_lesson(method).terms(batch).keys() == {"binary"}


class TestLabels:
    @pytest.mark.parametrize("value", [0, 3, 255])
    def test_a_batch_of_one_label_gives_finite_terms(self, give_lesson, batch, value):
        lesson = give_lesson(make_method("barm", threshold=1.0))
        terms = lesson.terms(batch.relabelled(torch.full_like(batch.labels, value)))
        assert all(torch.isfinite(term) for term in terms.values())
        assert (terms["margin"] > 0) <= (value == 0)
        assert (terms["residual"] > 0) == (value == 3)
        assert (terms["branch"] > 0) == (value == 0)

    def test_what_was_labelled_is_known_after_pseudo_labels(self, give_lesson, batch):
        lesson = give_lesson(make_method("barm", threshold=0.0))
        _, teacher = lesson.forward(batch)
        done = lesson.method.relabel(batch, teacher, lesson.context)
        assert not torch.equal(done.labels, batch.labels)
        for size in ((64, 64), (8, 8), (5, 7)):
            before, after = (given_masks(one, size, 3) for one in (batch, done))
            assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    def test_an_annotated_old_class_is_labelled(self, exemplar):
        labelled, unlabelled = given_masks(exemplar, (8, 8), 3)
        assert labelled.all()
        assert not unlabelled.any()


class TestVariants:
    def branches(self, variant: str) -> list[dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        segmenter = Segmenter(NETWORK, [3])
        with torch.no_grad():
            norm = segmenter.classifier.steps[0][1]
            norm.running_mean += 2
            norm.running_var += 3
        segmenter.grow(1, "branch")
        make_method("barm", variant=variant).prepare(segmenter, Step.of(TABLE, old=3))
        return [step.state_dict() for step in segmenter.classifier.steps]

    def test_a_new_branch_has_the_statistics_of_the_first_one(self):
        first, newest = self.branches("paper")
        assert torch.equal(first["1.running_mean"], newest["1.running_mean"])
        assert torch.equal(first["1.running_var"], newest["1.running_var"])

    def test_in_the_released_code_it_has_none(self):
        _, newest = self.branches("released")
        assert not newest["1.running_mean"].any()
        assert (newest["1.running_var"] == 1).all()

    @pytest.mark.parametrize("variant", ["paper", "released"])
    def test_statistics_do_not_change_in_later_steps(self, tmp_path, variant):
        run = learn(tmp_path / "run", tiny_recipe("barm", f"method.variant={variant}"))
        first, last = weights(run, 0), weights(run, 1)
        kept = [name for name in first if name.endswith(("running_mean", "running_var"))]
        assert all(torch.equal(first[name], last[name]) for name in kept)
        new = last["classifier.steps.1.1.running_mean"]
        assert torch.equal(new, last["classifier.steps.0.1.running_mean"]) == (variant == "paper")


def test_supervise_reads_logits_alone(give_lesson, batch):
    """As for auxiliary outputs."""
    lesson = give_lesson(make_method("barm"))
    logits = torch.randn(3, 4, 64, 64, requires_grad=True)
    lesson.method.supervise(SegmenterOutput(logits), lesson.fitting(batch), lesson.context).backward()
    assert not logits.grad[:, 1:3].any()
    assert logits.grad[:, 0].any()
    assert logits.grad[:, 3].any()

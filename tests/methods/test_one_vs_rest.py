"""DKD, STAR and Adapter: what they need, what counts in an exemplar, what is frozen, and what they store."""

import pytest
import torch

from contseg.errors import ContsegError
from contseg.methods.registry import make_method
from contseg.models.foreground import ForegroundClassifier
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.recipes.build import make_job
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step
from tests.engine.runs import learn, tiny_recipe, weights

NAMES = ("dkd", "star", "adapter")
TABLE = ["background", "cat", "dog", "fox"]


def network(name: str, **changes) -> NetworkOptions:
    kind = make_method(name).backgrounds[0]
    return NetworkOptions(backbone="resnet18", head="deeplabv3-dkd", background=kind, decision="sigmoid").changed(**changes)


class TestWhatTheyNeed:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"background": "learned"}, r"network\.background: method '\w+' cannot learn with learned; set network\.backg"),
            ({"decision": "softmax"}, r"network\.decision: method '\w+' .* set network\.decision=sigmoid"),
        ],
    )
    def test_another_network_is_refused_in_one_line(self, name, changes, told):
        with pytest.raises(ContsegError, match=told) as caught:
            make_method(name).check(network(name, **changes), [Step.of(TABLE)])
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", NAMES)
    def test_every_step_adds_classes_next_to_a_background(self, name):
        make_method(name).check(network(name), [Step.of(TABLE), Step.of(TABLE, old=3)])
        with pytest.raises(ContsegError, match=r"step 1 adds none"):
            make_method(name).check(network(name), [Step.of(TABLE, old=4)])
        with pytest.raises(ContsegError, match=r"have no background"):
            make_method(name).check(network(name), [Step.of(Step.of(TABLE).table.without_background())])

    @pytest.mark.parametrize("name", ["finetune", "mib", "gaussian", "lwf-mc"])
    def test_other_methods_need_an_output_for_background(self, tmp_path, name):
        with pytest.raises(ContsegError, match=rf"network\.background: method '{name}' cannot learn with constant"):
            make_job(tiny_recipe("finetune", f"method.name={name}", "network.background=constant"), tmp_path)

    @pytest.mark.parametrize("part", [{"auxiliary": {}}, {"head": "deeplabv3-ssul"}, {"head": "fcn", "idrnet": {}}])
    def test_parts_that_need_an_output_for_background_are_refused(self, part):
        with pytest.raises(ValueError, match=r"constant has no output for background, which .* needs"):
            NetworkOptions(background="constant").changed(**part)


class TestReplayWithoutStatistics:
    @pytest.mark.parametrize("name", ["star", "adapter"])
    def test_nothing_stored_is_told(self, name, give_lesson):
        lesson = give_lesson(make_method(name))
        lesson.method.state.clear()
        with pytest.raises(ContsegError, match=rf"method {name}: no statistics .* nothing can be replayed at step 1"):
            lesson.method.before_step(lesson.context)

    @pytest.mark.parametrize("name", ["star", "adapter"])
    def test_statistics_of_another_class_order_are_told(self, name, give_lesson):
        lesson = give_lesson(make_method(name))
        lesson.method.state["classes"] = lesson.method.state["classes"].flip(0)
        with pytest.raises(ContsegError, match=r"are of the classes \[2, 1\] .* step 1 continues \[1, 2\]"):
            lesson.method.before_step(lesson.context)

    def test_stored_statistics_are_used_again(self, give_lesson):
        method = make_method("star")
        statistics = method.state_dict() if (lesson := give_lesson(method)) else {}
        other = make_method("star")
        other.load_statistics({"unrelated": torch.zeros(1)})
        assert not other.state
        other.load_statistics(statistics)
        other.require_statistics(lesson.context.step)

    def test_a_run_from_its_segmenter_continues_with_its_statistics(self, tmp_path):
        whole = learn(tmp_path / "whole", tiny_recipe("star"))
        start = f"start_from={str(whole.segmenter_path(0))!r}"
        again = learn(tmp_path / "again", tiny_recipe("star", start))
        found, expected = (run.load_state(0).method for run in (again, whole))
        assert found["classes"].tolist() == expected["classes"].tolist() == [1, 2, 3, 4, 5]
        torch.testing.assert_close(found["prototypes"], expected["prototypes"])


class TestExemplars:
    """Old classes are annotated, the new class is not: background may hide it."""

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("variant", ["paper", "released"])
    def test_background_of_an_exemplar_is_no_negative_and_an_old_label_is(self, name, variant, give_lesson):
        lesson = give_lesson(make_method(name, variant=variant))
        annotated = torch.zeros(1, 4, dtype=torch.bool)
        annotated[:, 1:3] = True
        labels = torch.tensor([0, 2]).repeat_interleave(32)[None, :, None].expand(1, 64, 64)
        logits = torch.zeros(1, 4, 64, 64, requires_grad=True)
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), labels, ("a",), annotated)
        lesson.method.supervise(SegmenterOutput(logits), batch, lesson.context).backward()
        assert not logits.grad[:, :3].any()
        assert not logits.grad[:, 3, :32].any()
        assert (logits.grad[:, 3, 32:] > 0).all()


class TestLaterSteps:
    @pytest.mark.parametrize("name", NAMES)
    def test_norms_and_dropout_are_off_and_active_again_in_a_network_that_is_freed(self, name, give_lesson):
        student = give_lesson(make_method(name)).context.student
        dropout = [module for module in student.modules() if isinstance(module, torch.nn.Dropout)]
        norms = [module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        student.train()
        assert dropout
        assert not any(module.training for module in (*dropout, *norms))
        assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
        student.freeze()
        assert all(module.training for module in (*dropout, *norms))

    def test_only_new_classifiers_of_dkd_have_weight_decay(self, give_lesson):
        context = give_lesson(make_method("dkd")).context
        old, new = make_method("dkd").parameter_groups(context.student, context.step)
        assert (old["weight_decay"], "weight_decay" in new) == (0.0, False)
        assert {id(one) for one in new["params"]} == {id(one) for one in context.student.classifier.steps[-1].parameters()}

    def test_new_classifiers_of_star_learn_faster(self, give_lesson):
        context = give_lesson(make_method("star")).context
        factors = [group["lr_factor"] for group in make_method("star").parameter_groups(context.student, context.step)]
        assert factors == [1.0, 10.0]

    def test_dkd_starts_from_the_auxiliary_classifier(self, give_lesson):
        classifier = give_lesson(make_method("dkd")).context.student.classifier
        assert torch.equal(classifier.steps[-1].weight, classifier.auxiliary.weight)
        assert torch.equal(classifier.steps[-1].bias, classifier.auxiliary.bias)

    def test_prototypes_of_adapter_move_and_those_of_its_released_code_do_not(self, give_lesson, batch):
        for variant, moves in (("paper", True), ("released", False)):
            lesson = give_lesson(make_method("adapter", variant=variant, sure=0.0, interval=1))
            before = lesson.method.state["prototypes"].clone()
            lesson.method.after_epoch(lesson.context)
            assert bool((lesson.method.state["prototypes"] != before).any()) == moves

    def test_statistics_grow_by_the_new_classes(self, give_lesson, batch):
        lesson = give_lesson(make_method("adapter", compensation=False))
        before = {name: value.clone() for name, value in lesson.method.state.items()}
        lesson.learn([batch])
        state = lesson.method.state
        assert [len(state[name]) for name in ("classes", "prototypes", "noise")] == [3, 3, 3]
        assert [state["norms"].shape[1], len(state["numbers"]), len(state["current"])] == [3, 4, 4]
        for name in ("prototypes", "noise"):
            assert torch.equal(state[name][:2], before[name])


class TestAClassifierWithoutBackground:
    def test_old_logits_are_bit_equal_after_growing(self):
        torch.manual_seed(0)
        for start, kind in (("random", False), ("auxiliary", True)):
            classifier, features = ForegroundClassifier(8, [4, 2], auxiliary=kind), torch.randn(2, 8, 5, 5)
            before = classifier(features)
            classifier.grow(3, start)
            assert torch.equal(classifier(features)[:, :6], before)
            assert classifier.widths == [4, 2, 3]

    @pytest.mark.parametrize(("auxiliary", "start"), [(False, "auxiliary"), (False, "background"), (True, "unknown")])
    def test_other_starts_are_told(self, auxiliary, start):
        with pytest.raises(ContsegError, match=rf"cannot start new classes from '{start}'; .* no output for background"):
            ForegroundClassifier(8, [3], auxiliary).grow(1, start)

    def test_vectors_have_the_logits_of_pixels(self):
        classifier, features = ForegroundClassifier(8, [4, 2]), torch.randn(1, 8, 1, 6)
        for steps in (slice(None), slice(-1, None), slice(1)):
            expected = classifier(features, steps)[0, :, 0].T
            torch.testing.assert_close(classifier.of_vectors(features[0, :, 0].T, steps), expected)

    def test_vectors_need_a_classifier_of_single_pixels(self):
        segmenter = Segmenter(NetworkOptions(backbone="resnet18", head="deeplabv3-ssul"), [3])
        with pytest.raises(ContsegError, match=r"cannot be applied to single vectors"):
            segmenter.classifier.of_vectors(torch.zeros(1, 256))

    def test_a_run_saves_and_measures_it_like_any_other(self, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("dkd"))
        assert [len(confusion) for confusion in run.confusions()] == [6, 11]
        assert weights(run)["classifier.auxiliary.weight"].shape == (1, 16, 1, 1)

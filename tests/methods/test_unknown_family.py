"""SSUL, IDEC and LAG: what learns in a later step, from which labels, and what each adds to that."""

import pytest
import torch
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.losses.confidence import histogram_median
from contseg.methods.idec import IDEC
from contseg.methods.idec_released import IDECReleased
from contseg.methods.lag import LAG
from contseg.methods.lag_released import LAGReleased
from contseg.methods.registry import make_method
from contseg.methods.ssul import SSUL
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import SegmenterOutput
from tests.methods.conftest import random_batch

HEADS_ONLY = [SSUL(), IDECReleased(), LAGReleased()]
ALL_LEARN = [IDEC(), LAG()]
FAMILY = [*HEADS_ONLY, *ALL_LEARN]


def named(methods):
    return pytest.mark.parametrize("method", methods, ids=lambda m: f"{m.name} {m.variant}")


def fresh(method):
    return type(method)()


class TestWhatLearns:
    @named(HEADS_ONLY)
    def test_only_the_classifiers_of_unknown_background_and_the_new_class(self, method, give_lesson, batch):
        lesson = give_lesson(fresh(method))
        before = {name: value.clone() for name, value in lesson.context.student.state_dict().items()}
        lesson.learn([batch, batch])
        moved = {name for name, value in lesson.context.student.state_dict().items() if not torch.equal(value, before[name])}
        assert {name.rpartition(".")[0].rpartition(".")[0] for name in moved} == {f"classifier.steps.{n}" for n in (0, 1, 3)}

    @named(HEADS_ONLY)
    def test_so_that_old_logits_stay_bit_equal(self, method, give_lesson, batch):
        lesson = give_lesson(fresh(method))
        student = lesson.context.student
        image = student.normalise(batch.images)
        before = student.eval()(image).logits.detach()
        student.train()
        lesson.learn([batch, batch])
        after = student.eval()(image).logits
        assert torch.equal(after[:, 2:4], before[:, 2:4])
        assert not torch.equal(after[:, 4:], before[:, 4:])

    @named(HEADS_ONLY)
    def test_background_learns_at_a_ten_thousandth_of_the_rate(self, method, give_lesson):
        context = give_lesson(fresh(method)).context
        fast, slow = method.parameter_groups(context.student, context.step)
        assert (fast["lr_factor"], slow["lr_factor"]) == (1.0, 1e-4)
        assert {id(p) for p in slow["params"]} <= {id(p) for p in context.student.classifier.steps[1].parameters()}
        assert slow["params"]

    @named(ALL_LEARN)
    def test_or_everything(self, method, give_lesson, batch):
        lesson = give_lesson(fresh(method))
        groups = method.parameter_groups(lesson.context.student, lesson.context.step)
        learning = {id(parameter) for group in groups for parameter in group["params"]}
        assert {group["lr_factor"] for group in groups} == {1.0, 1e-4}
        idle = [name for name, p in lesson.context.student.named_parameters() if id(p) not in learning]
        assert all(name.startswith("head.dense.") for name in idle)
        assert bool(idle) == isinstance(method, LAG)

    @pytest.mark.parametrize("method", [IDEC(old_factor=0.1), LAG(old_factor=0.1)], ids=["idec", "lag"])
    def test_or_everything_with_old_classifiers_at_a_smaller_rate(self, method, give_lesson):
        context = give_lesson(method).context
        groups = method.parameter_groups(context.student, context.step)
        (slow,) = (group["params"] for group in groups if group["lr_factor"] == 0.1)
        assert {id(p) for p in slow} == {id(p) for p in context.student.classifier.steps[2].parameters()}

    @named(HEADS_ONLY)
    def test_what_was_held_learns_again_once_it_is_let_go(self, method, give_lesson):
        student = give_lesson(fresh(method)).context.student
        student.freeze()
        assert all(parameter.requires_grad for parameter in student.parameters())
        assert all(module.training for module in student.modules())

    @named(FAMILY)
    def test_a_network_that_decides_by_softmax_is_told_what_to_set(self, method, make_scenario):
        network = NetworkOptions(head="deeplabv3-ssul", unknown=True)
        with pytest.raises(ContsegError, match=rf"network\.decision: method '{method.name}'.* network\.decision=sigmoid"):
            method.check(network, make_scenario(method))

    @named([method for method in FAMILY if "aspp1" in method.taps])
    def test_a_network_without_pyramids_is_told_before_anything_is_learned(self, method, make_scenario):
        network = NetworkOptions(head="fcn", unknown=True, decision="sigmoid")
        with pytest.raises(ContsegError, match=r"network\.head=deeplabv3-ssul"):
            method.check(network, make_scenario(method))
        if method.name == "idec":
            type(method)(features="stages").check(network, make_scenario(method))


class TestPseudoLabels:
    """Outputs: 0 unknown, 1 background, 2 and 3 old, 4 new."""

    def labels(self, method, give_lesson, scores, labels, annotated=(4,)):
        lesson = give_lesson(method)
        batch = lesson.fitting(random_batch())
        batch.annotated[:] = False
        batch.annotated[:, list(annotated)] = True
        batch = batch.relabelled(torch.full_like(batch.labels, labels))
        teacher = SegmenterOutput(torch.logit(torch.tensor(scores)).view(1, 4, 1, 1).expand(3, 4, 8, 8))
        return method.relabel(batch, teacher, lesson.context).labels.unique().tolist()

    @named(FAMILY)
    @pytest.mark.parametrize(
        ("scores", "given", "expected"),
        [
            ((0.1, 0.1, 0.1, 0.9), 0, 3),
            ((0.1, 0.1, 0.9, 0.1), 1, 2),
            ((0.1, 0.1, 0.2, 0.6), 0, 0),  # not sure enough
            ((0.9, 0.1, 0.1, 0.1), 1, 1),  # unknown is no class
            ((0.1, 0.1, 0.1, 0.9), 4, 4),  # what an annotator marked stays
            ((0.1, 0.1, 0.1, 0.9), 255, 255),
        ],
    )
    def test_fill_in_background_where_the_teacher_is_sure_of_a_class(self, method, give_lesson, scores, given, expected):
        assert self.labels(fresh(method), give_lesson, scores, given) == [expected]

    @named(FAMILY)
    def test_never_say_what_an_annotator_did_not_find(self, method, give_lesson):
        assert self.labels(fresh(method), give_lesson, (0.1, 0.1, 0.1, 0.9), 0, annotated=(3,)) == [0]

    def test_lag_asks_for_a_margin_over_the_second_class(self, give_lesson):
        assert self.labels(LAG(), give_lesson, (0.1, 0.1, 0.75, 0.8), 0) == [0]
        assert self.labels(LAG(margin=0.04), give_lesson, (0.1, 0.1, 0.75, 0.8), 0) == [3]

    def test_the_released_ranking_of_lag_turns_a_sure_pixel_away(self, give_lesson):
        sure = (0.001, 0.001, 0.999, 0.001)
        assert self.labels(LAGReleased(), give_lesson, sure, 0) == [2]
        assert self.labels(LAGReleased(ranking=True), give_lesson, sure, 0) == [0]

    def test_idec_lowers_the_threshold_of_a_class_of_which_the_teacher_is_never_very_sure(self, give_lesson):
        unsure = (0.1, 0.1, 0.1, 0.557)  # above the middle of its bin
        assert self.labels(IDECReleased(), give_lesson, unsure, 0) == [0]
        assert self.labels(IDEC(), give_lesson, unsure, 0) == [3]  # 3 x 64 x 64 pixels are enough to know

    def test_idec_counts_the_confidences_of_every_batch_and_forgets_slowly(self, give_lesson):
        lesson, method = give_lesson(IDEC()), None
        method = lesson.method
        score, said = torch.full((1, 1, 2000), 0.655), torch.full((1, 1, 2000), 3)
        for _ in range(2):
            found = method.thresholds(score, said, lesson.context)
        counts = method.state["confidences"]
        assert counts.sum() == pytest.approx(2000 * 1.99)
        assert counts[3, 65] == counts.sum()
        assert found.tolist() == pytest.approx([0.7, 0.7, 0.7, float(histogram_median(counts)[3])])


class TestTerms:
    @named([m for m in FAMILY if m.inert_terms])
    def test_what_is_declared_inert_reaches_nothing_and_is_there(self, method, give_lesson, batch):
        terms = give_lesson(fresh(method)).terms(batch)
        assert method.inert_terms < set(terms)
        assert all(not terms[name].requires_grad for name in method.inert_terms)

    def test_the_released_contrast_of_idec_adds_unknown_to_background_before_the_supervised_term(self, give_lesson, batch):
        lesson = give_lesson(IDECReleased())
        labels = lesson.fitting(batch)
        student, teacher = lesson.forward(batch)
        logits = student.logits_at(batch.size)
        merged = torch.cat([logits[:, :1], logits[:, :1] + logits[:, 1:2], logits[:, 2:]], dim=1)
        for contrast, expected in ((1.0, merged), (0.0, logits)):
            method = IDECReleased(contrast=contrast)
            found = method.losses(labels, student, teacher, lesson.context)
            assert torch.equal(found["cross_entropy"], method.supervise(SegmenterOutput(expected), labels, lesson.context))
            assert ("contrast" in found) == bool(contrast)

    def test_idec_contrasts_each_region_with_everything_else(self, give_lesson, batch):
        lesson = give_lesson(IDEC())
        student, teacher = lesson.forward(batch)
        ours, theirs = student.features["aspp4"].double(), teacher.features["aspp4"].double()
        said = torch.cat([teacher.logits[:, :1] + teacher.logits[:, 1:2], teacher.logits[:, 2:]], dim=1).argmax(dim=1)
        expected = []
        for number in (1, 2):
            inside = (said == number)[:, None].expand_as(ours)
            if not 0 < inside.sum() < inside.numel():
                continue
            anchor, positive, negative = (
                functional.normalize(
                    torch.stack(
                        [row[region].mean() for row, region in zip(features.unbind(1), where.unbind(1), strict=True)]
                    ),
                    dim=0,
                )
                for features, where in ((theirs, inside), (ours, inside), (ours, ~inside))
            )
            expected.append(functional.triplet_margin_loss(anchor[None], positive[None], negative[None]))
        assert expected
        found = lesson.method.regions(ours, theirs, teacher, lesson.context)
        torch.testing.assert_close(found, torch.stack(expected).mean())

    def test_idec_distils_nothing_but_its_own_entropy_from_a_student_that_agrees(self, give_lesson, batch):
        """The criterion is a cross-entropy: it is not 0 where both agree, but the sharpened teacher still pulls."""
        lesson = give_lesson(IDEC())
        student, teacher = lesson.forward(batch)
        terms = lesson.method.losses(lesson.fitting(batch), student, teacher, lesson.context)
        assert terms["distillation"] > 0
        assert terms["distillation_logits"] > 0

    def test_lag_keeps_its_prototypes_over_steps_and_means_over_all_that_was_seen(self, give_lesson, batch):
        lesson = give_lesson(LAG(threshold=0.0))
        method = lesson.method
        _, teacher = lesson.forward(batch)
        features = teacher.features["head"]
        said = method.confident_classes(teacher, lesson.context)
        invariant = torch.ones(features.shape[1], dtype=torch.bool)
        for scale in (1.0, 3.0):
            method.prototype_distance(features, scale * features, invariant, teacher, lesson.context)
        for number in (2, 3):
            inside = (said == number)[:, None].expand_as(features)
            if inside.any():
                mean = torch.stack(
                    [row[where].mean() for row, where in zip(features.unbind(1), inside.unbind(1), strict=True)]
                )
                torch.testing.assert_close(method.state["prototypes"][number].float(), 2 * mean)
        kept = method.state["prototypes"].clone()
        method.before_step(lesson.context)
        assert torch.equal(method.state["prototypes"], kept)
        assert not method.state["divergence"].any()

    def test_lag_compares_where_student_and_teacher_look(self, give_lesson, batch):
        lesson = give_lesson(LAG())
        lesson.context.student.load_state_dict(lesson.context.student.state_dict())
        lesson.context.student.eval()  # as the teacher, of which it is a copy
        student, teacher = lesson.forward(batch)
        assert lesson.method.relevance_distance(student, teacher, lesson.context).abs() < 1e-6
        with torch.no_grad():
            for parameter in lesson.context.student.classifier.steps[2].parameters():
                parameter.add_(torch.randn_like(parameter))
        student, teacher = lesson.forward(batch)
        assert lesson.method.relevance_distance(student, teacher, lesson.context) > 1e-3

    def test_lag_leaves_the_norms_of_the_classifiers_as_they_were(self, give_lesson, batch):
        lesson = give_lesson(LAG())
        student, teacher = lesson.forward(batch)
        norm = lesson.context.student.classifier.steps[2][1]
        before = norm.running_mean.clone()
        lesson.method.relevance_distance(student, teacher, lesson.context)
        assert norm.training
        assert torch.equal(norm.running_mean, before)

    def test_one_image_alone_has_nobody_to_be_told_apart_from(self, give_lesson):
        lesson = give_lesson(LAG())
        features = torch.rand(1, 8, 4, 4, requires_grad=True)
        specific = torch.ones(8, dtype=torch.bool)
        assert lesson.method.image_contrast(features, features.detach(), specific, lesson.context) == 0
        two = features.expand(2, 8, 4, 4)
        assert lesson.method.image_contrast(two, two.detach(), specific, lesson.context).isfinite()

    @pytest.mark.parametrize("name", ["idec", "lag"])
    def test_the_pull_of_a_later_epoch_is_weaker_by_lambda(self, name, give_lesson, batch):
        method = make_method(name, decay=0.5)
        lesson = give_lesson(method)
        lesson.context.epochs = 2
        key = "distillation" if name == "idec" else "invariance"
        student, teacher = lesson.forward(batch)
        labels = lesson.fitting(batch)
        values = []
        for lesson.context.epoch in (0, 1):
            values.append(method.losses(labels, student, teacher, lesson.context)[key].item())
        if name == "lag":
            assert values[1] / values[0] == pytest.approx(0.5**0.5, rel=0.05)
        else:
            assert values[1] < values[0]

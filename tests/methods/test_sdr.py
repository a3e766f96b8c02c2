"""SDR: when prototypes move, and what its terms are as a whole."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from contseg.data.classes import ClassTable
from contseg.losses.cross_entropy import cross_entropy, unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.losses.prototypes import class_means, class_sums, nearest
from contseg.methods.sdr import SDR, old_classes_in
from contseg.methods.sdr_released import SDRReleased
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter, SegmenterOutput

VARIANTS = (SDR, SDRReleased)


def activated(output):
    """The backbone's map as SDR sees it; the network of the tests has slope 0.01."""
    return functional.leaky_relu(output.features["stage4"], 0.01)


def small(labels, features):
    return nearest(labels, features.shape[2:])


@pytest.fixture
def lesson(give_lesson):
    """SDR in float64 in the middle of a scenario, after a look at step 0."""
    made = give_lesson(SDR())
    made.context.student.double()
    made.context.teacher.double()
    return made


def losses(lesson, batch):
    """The terms, what student and teacher said, and the state before."""
    student, teacher = lesson.forward(batch)
    before = copy.deepcopy(lesson.method.state_dict())
    return lesson.method.losses(batch, student, teacher, lesson.context), student, teacher, before


def classes_of(labels, features):
    """Number -> (n, D) of each class that is there."""
    return {number: features.movedim(1, 3)[labels == number] for number in labels.unique().tolist() if number != 255}


def prototypes_after(before, labels, features):
    """Prototypes and counts after a batch, class by class."""
    prototypes, counts = before["prototypes"].double().clone(), before["counts"].clone()
    for number, own in classes_of(labels, features.detach()).items():
        count = counts[number] + len(own)
        prototypes[number] = (counts[number] * prototypes[number] + own.sum(dim=0)) / count
        counts[number] = count
    return prototypes, counts


class TestWholeStep:
    def test_terms_are_those_of_the_paper_class_by_class_and_pixel_by_pixel(self, lesson, batch):
        terms, student, teacher, before = losses(lesson, batch)
        features, logits = activated(student), student.logits_at(batch.size)
        labels, old_logits = small(batch.labels, features), teacher.logits_at(batch.size)
        annotated = labels.where(labels == 3, 255)  # the new class
        prototypes, counts = prototypes_after(before, annotated, features)
        assert torch.equal(lesson.method.state["counts"], counts)
        assert torch.allclose(lesson.method.state["prototypes"], prototypes)
        assert before["counts"][3] == 0
        assert counts[0] == 0, "background is nowhere annotated"

        own = classes_of(labels, features)
        assert sorted(own) == [0, 3]
        said = old_logits.argmax(dim=1)
        known = small(said, features).where(labels == 0, 255)
        known = known.where(known != 0, 255)
        seen = classes_of(known, features)
        assert seen
        ratios = []
        for number in labels.unique():
            pixels = features.movedim(1, 3)[labels == number]
            measured = pixels / pixels.max()
            ratios.append(measured.exp().sum(dim=1) / measured.sum(dim=1))
        expected = {
            "cross_entropy": unbiased_cross_entropy(logits, batch.labels, 3).mean(),
            "distillation": 100 * unbiased_distillation(logits, old_logits).mean(),
            "attraction": 1e-3 * (own[3] - prototypes[3]).square().mean(),  # background has no prototype
            "repulsion": 1e-3 / (own[0].mean(dim=0) - own[3].mean(dim=0)).norm(),
            "matching": 0.01
            * torch.stack([(pixels.mean(dim=0) - prototypes[c]).square().mean() for c, pixels in seen.items()]).mean(),
            "sparsity": 1e-3 * torch.cat(ratios).mean(),
        }
        assert terms.keys() == expected.keys()
        tap = student.features["stage4"]
        for name, value in expected.items():
            assert torch.allclose(terms[name], value, rtol=1e-9), name
            if name not in ("cross_entropy", "distillation"):
                found, wanted = (torch.autograd.grad(each, tap, retain_graph=True)[0] for each in (terms[name], value))
                assert torch.allclose(found, wanted, rtol=1e-7, atol=1e-15), name

    def test_alone_is_plain_cross_entropy_without_distillation(self, give_lesson, batch):
        alone, student, *_ = losses(give_lesson(SDR(on="alone")), batch)
        assert set(alone) == {"cross_entropy", "attraction", "repulsion", "matching", "sparsity"}
        assert torch.allclose(alone["cross_entropy"], cross_entropy(student.logits_at(batch.size), batch.labels).mean())

    def test_a_term_without_weight_is_left_out(self, give_lesson, batch):
        method = SDR(distillation=0.0, matching=0.0, attraction=0.0, repulsion=0.0, sparsity=0.0)
        assert set(give_lesson(method).terms(batch)) == {"cross_entropy"}

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_step_0_has_sparsity_alone_and_makes_prototypes(self, give_lesson, batch, variant):
        lesson = give_lesson(variant(), 0)
        batch = batch.relabelled(batch.labels.where(batch.labels != 3, 1))
        batch.annotated[:, 1] = True
        terms, student, _, before = losses(lesson, batch)
        assert set(terms) == {"cross_entropy", "sparsity"}
        assert not before["counts"].any()
        features = activated(student)
        labels = small(batch.labels, features)
        assert lesson.method.state["counts"].tolist() == [0, (labels == 1).sum(), 0]

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("labels", [255, 0])
    def test_a_batch_without_classes_gives_terms_with_gradients_that_are_finite(self, give_lesson, batch, variant, labels):
        terms = give_lesson(variant()).terms(batch.relabelled(torch.full_like(batch.labels, labels)))
        assert len(terms) == 6
        for name, value in terms.items():
            assert value.requires_grad, name
            assert torch.isfinite(value), name
        assert not terms["repulsion"], "a class alone has nobody to leave"

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("background", [True, False])
    def test_a_step_that_brings_no_class_is_learned_with_plain_cross_entropy(self, give_lesson, batch, variant, background):
        lesson = give_lesson(variant())
        names = ["background", "red", "green", "blue"] if background else ["red", "green", "blue", "grey"]
        table = ClassTable.of(names) if background else ClassTable.of(names, "none")
        lesson.context.step = replace(lesson.context.step, new_classes=(), old_classes=(0, 1, 2, 3), table=table)
        batch.annotated[:] = True
        student, _ = lesson.forward(batch)
        teacher = SegmenterOutput(student.logits.detach())
        terms = lesson.method.losses(batch, student, teacher, lesson.context)
        plain = cross_entropy(student.logits_at(batch.size), batch.labels).mean()
        assert torch.equal(terms["cross_entropy"], plain)
        assert len(terms) == 6
        assert all(torch.isfinite(value) for value in terms.values())
        labels = small(batch.labels, student.features["stage4"])
        known = old_classes_in(batch, labels, teacher, lesson.context)
        assert (0 in known) == (not background), "without background, 0 is a class like the others"


class TestPrototypes:
    def test_they_move_before_the_losses(self, give_lesson, batch):
        lesson = give_lesson(SDR())
        terms, student, _, before = losses(lesson, batch)
        features = activated(student)
        own = features.movedim(1, 3)[small(batch.labels, features) == 3]
        assert before["counts"][3] == 0
        spread = (own - own.mean(dim=0)).square().mean()  # from a prototype that holds this very batch
        assert torch.allclose(terms["attraction"], 1e-3 * spread)

    def test_they_are_means_over_batches_and_steps(self, lesson, batch):
        _, student, _, before = losses(lesson, batch)
        before["prototypes"] = before["prototypes"].double()
        features = activated(student).detach()
        labels = small(batch.labels, features).where(small(batch.labels, features) == 3, 255)
        once = prototypes_after(before, labels, features)
        twice = prototypes_after({"prototypes": once[0], "counts": once[1]}, labels, features)
        losses(lesson, batch)  # the student has not changed
        assert torch.equal(lesson.method.state["counts"], twice[1])
        assert torch.allclose(lesson.method.state["prototypes"], twice[0])
        assert before["counts"][1:3].all(), "old classes were seen at step 0"
        assert torch.equal(lesson.method.state["prototypes"][:3], before["prototypes"][:3]), "and rest"

    def test_they_carry_no_gradient(self, give_lesson, batch):
        lesson = give_lesson(SDR())
        lesson.terms(batch)
        assert not any(value.requires_grad for value in lesson.method.state.values())

    def test_new_classes_add_prototypes_at_the_origin(self, give_lesson):
        lesson = give_lesson(SDR(), 1)
        prototypes, counts = lesson.method.state["prototypes"], lesson.method.state["counts"]
        assert prototypes.shape == (4, lesson.context.student.backbone.channels[-1])
        assert prototypes[1:3].any(dim=1).all()
        assert counts[1:3].all()
        assert not prototypes[3].any()
        assert counts[3] == 0

    def test_an_exemplar_moves_the_prototype_of_its_class(self, give_lesson, exemplar):
        lesson = give_lesson(SDR())
        terms, student, _, before = losses(lesson, exemplar)
        features = activated(student)
        expected, counts = prototypes_after(before, torch.full((3, *features.shape[2:]), 2), features)
        assert torch.equal(lesson.method.state["counts"], counts)
        assert torch.allclose(lesson.method.state["prototypes"], expected.float())
        pulled = (features.mean(dim=(0, 2, 3)) - expected[2]).square().mean()
        assert torch.allclose(terms["matching"], 0.01 * pulled.float()), "its label is where the class is"

    @pytest.mark.parametrize("annotated", [True, False])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_background_moves_its_prototype_where_it_is_annotated(self, give_lesson, batch, variant, annotated):
        lesson = give_lesson(variant())
        batch.annotated[:, :3] = annotated
        _, student, _, before = losses(lesson, batch)
        labels = small(batch.labels, student.features["stage4"])
        added = lesson.method.state["counts"] - before["counts"]
        assert added.tolist() == [(labels == 0).sum() * annotated, 0, 0, (labels == 3).sum()]

    def test_background_of_one_image_may_be_truth_and_of_another_not(self, give_lesson, batch):
        lesson = give_lesson(SDR())
        batch.annotated[1, 0] = True
        _, student, _, before = losses(lesson, batch)
        labels = small(batch.labels, student.features["stage4"])
        assert lesson.method.state["counts"][0] - before["counts"][0] == (labels[1] == 0).sum()

    def test_a_class_without_one_is_not_pulled_to_the_origin(self, give_lesson, batch):
        lesson = give_lesson(SDR())
        lesson.method.state["prototypes"].zero_()
        lesson.method.state["counts"].zero_()
        assert lesson.terms(batch)["matching"] == 0
        released = give_lesson(SDRReleased())
        released.method.state["prototypes"].zero_()
        released.method.state["counts"].zero_()
        assert released.terms(batch)["matching"] > 0

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_they_go_on_after_a_resume(self, give_lesson, batch, variant):
        lesson = give_lesson(variant())
        lesson.terms(batch)
        resumed = variant()
        resumed.load_state_dict(copy.deepcopy(lesson.method.state_dict()))
        expected = lesson.terms(batch)
        lesson.method, first = resumed, lesson.method
        assert all(torch.equal(value, expected[name]) for name, value in lesson.terms(batch).items())
        assert all(torch.equal(value, first.state[name]) for name, value in resumed.state.items())

    def test_what_shapes_step_0_is_in_its_key(self):
        key = SDR().first_step_key()
        assert key == SDR(on="alone", matching=1.0, attraction=1.0, repulsion=1.0, distillation=1.0).first_step_key()
        assert key != SDR(sparsity=0.1).first_step_key()
        assert key != SDRReleased().first_step_key()


class TestGivenStep:
    """`epochs` is 0 where a segmenter stands for step 0."""

    @pytest.fixture
    def given(self, give_lesson):
        lesson = give_lesson(SDR(), 0)
        lesson.context.epochs = 0
        for batch in lesson.context.loader:
            batch.labels[batch.labels == 3] = 1
            batch.annotated[:, 1] = True
        return lesson

    def test_one_look_makes_the_prototypes_of_the_segmenter_as_it_is(self, given):
        student = given.context.student
        before = copy.deepcopy(student.state_dict())
        given.method.after_step(given.context)
        assert student.training
        assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
        student.eval()
        outputs = [student(student.normalise(batch.images), taps=("stage4",)) for batch in given.context.loader]
        features = torch.cat([activated(output) for output in outputs])
        labels = small(torch.cat([batch.labels for batch in given.context.loader]), features)
        sums, counts = class_sums(features, labels.where(labels == 1, 255), 3)
        assert counts[1]
        assert torch.equal(given.method.state["counts"], counts)
        assert torch.allclose(given.method.state["prototypes"], class_means(sums, counts), atol=1e-6)

    def test_after_a_step_that_was_learned_nobody_looks(self, give_lesson):
        lesson = give_lesson(SDR())
        before = copy.deepcopy(lesson.method.state_dict())
        lesson.method.after_step(lesson.context)
        assert all(torch.equal(value, before[name]) for name, value in lesson.method.state.items())


class TestOldClasses:
    """Where prototype matching sees old classes."""

    def known(self, lesson, batch, said, labels):
        logits = functional.one_hot(said, 3).movedim(-1, 1).float()
        full = replace(batch, labels=labels)
        return old_classes_in(full, labels, SegmenterOutput(logits), lesson.context)

    @pytest.fixture
    def case(self, give_lesson, batch):
        lesson = give_lesson(SDR())
        said = torch.tensor([0, 1, 2, 1]).expand(3, 1, 4)
        labels = torch.tensor([0, 0, 0, 3]).expand(3, 1, 4)
        return lesson, batch, said, labels

    def test_on_background_they_are_what_the_teacher_says(self, case):
        assert self.known(*case)[0].tolist() == [[255, 1, 2, 255]]

    def test_a_class_that_was_annotated_is_not_where_background_is(self, case):
        case[1].annotated[:, 2] = True
        assert self.known(*case)[0].tolist() == [[255, 1, 255, 255]]

    def test_where_all_old_classes_were_annotated_the_labels_tell(self, case):
        lesson, batch, said, _ = case
        batch.annotated[:] = True
        labels = torch.tensor([2, 1, 0, 255]).expand(3, 1, 4)
        assert self.known(lesson, batch, said, labels)[0].tolist() == [[2, 1, 255, 255]]


def test_a_backbone_without_a_last_activation_has_a_finite_sparsity(give_lesson):
    lesson = give_lesson(SDR())
    lesson.context.student.backbone.activate = lambda features: features
    features = torch.randn(2, 64, 8, 8)
    features = (features - features.mean(dim=1, keepdim=True)).requires_grad_()  # as after a layer norm: its sum is nothing
    loss = lesson.method.sparse(features, torch.zeros(2, 8, 8, dtype=torch.int64), lesson.context)
    loss.backward()
    assert 1 < loss.item() < 100
    assert features.grad.abs().max() < 10


def test_as_released_a_pixel_that_adds_up_to_something_negative_has_a_negative_sparsity(give_lesson):
    features = torch.tensor([[2.0, 1.0], [1.0, -3.0]]).view(1, 2, 1, 2)
    labels = torch.zeros(1, 1, 2, dtype=torch.int64)
    e = torch.tensor([1.0, 0.5, 0.5, -1.5]).exp()
    for variant, expected in ((SDR, (e[0] + e[1]) / 1.5 / 2), (SDRReleased, ((e[0] + e[1]) / 1.5 - (e[2] + e[3])) / 2)):
        lesson = give_lesson(variant())
        torch.testing.assert_close(lesson.method.sparse(features, labels, lesson.context), expected)


def test_idrnet_over_fcn_learns_with_it(give_lesson, batch):
    lesson = give_lesson(SDR())
    options = NetworkOptions(backbone="resnet18", width=4, head="fcn", head_width=8, idrnet={"attention_width": 8})
    student, teacher = (Segmenter(options, first_widths(options, 3)) for _ in range(2))
    student.grow(1, SDR.new_classes_start_from)
    lesson.context.student = student.train()
    lesson.context.predict_teacher = lambda batch: teacher.eval()(teacher.normalise(batch.images), taps=("stage4",))
    terms = lesson.terms(batch)
    assert len(terms) == 6
    assert all(torch.isfinite(value) for value in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None for p in student.backbone.parameters())


def test_new_classifiers_start_at_random():
    assert SDR.new_classes_start_from == "random"
    assert SDR().distillation == 100

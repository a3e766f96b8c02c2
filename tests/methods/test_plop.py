"""PLOP: pseudo labels, thresholds, and the factor of an image; where its two variants differ."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.confidence import entropy
from contseg.losses.pod import fold_new_classes, local_pod_loss
from contseg.methods.plop import PLOP
from contseg.methods.plop_released import PLOPReleased
from contseg.methods.pseudo_labels import pseudo_labelled
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch

OLD, SEEN = 3, 5
VARIANTS = (PLOP, PLOPReleased)


@st.composite
def cases(draw):
    """A batch with any labels and annotations, and a teacher who says anything."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    shape = (3, 4, 5)
    labels = torch.randint(0, SEEN, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < 0.2] = 255
    annotated = torch.rand(3, SEEN, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    annotated[:, 0] &= draw(st.booleans())
    batch = Batch(torch.zeros(3, 3, 4, 5), labels, ("a", "b", "c"), annotated)
    said = torch.randint(0, OLD, shape, generator=generator)
    sure = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return batch, said, sure


class TestPseudoLabels:
    @settings(max_examples=100, deadline=None)
    @given(cases())
    def test_annotated_labels_are_truth(self, case):
        batch, said, sure = case
        found = pseudo_labelled(batch, said, sure, OLD)
        old = batch.labels < OLD
        marked = torch.stack([batch.annotated[i, batch.labels[i].where(old[i], 0)] for i in range(3)])
        kept = ~old | marked  # new classes and ignored pixels, and what an annotator marked
        assert torch.equal(found.labels[kept], batch.labels[kept])

    @settings(max_examples=100, deadline=None)
    @given(cases())
    def test_other_pixels_are_what_the_teacher_surely_says_or_ignored(self, case):
        batch, said, sure = case
        changed = pseudo_labelled(batch, said, sure, OLD).labels
        different = changed != batch.labels
        assert ((changed == 255) | ((changed == said) & sure))[different].all()
        assert (batch.labels < OLD)[different].all()

    @settings(max_examples=100, deadline=None)
    @given(cases())
    def test_no_pseudo_label_is_a_class_that_was_annotated(self, case):
        batch, said, sure = case
        changed = pseudo_labelled(batch, said, sure, OLD).labels
        for image in range(3):
            invented = changed[image][changed[image] != batch.labels[image]]
            invented = invented[(invented > 0) & (invented < OLD)]
            assert not batch.annotated[image, invented].any()

    @settings(max_examples=100, deadline=None)
    @given(cases())
    def test_weights_are_shares(self, case):
        weights = pseudo_labelled(*case, OLD).weights
        assert weights.shape == (3,)
        assert ((weights >= 0) & (weights <= 1)).all()

    def test_background_stays_where_all_old_classes_were_annotated(self):
        annotated = torch.tensor([[False, True, True, False, False]])
        batch = Batch(torch.zeros(1), torch.zeros(1, 2, 2, dtype=torch.int64), ("a",), annotated)
        said, sure = torch.ones(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.bool)
        found = pseudo_labelled(batch, said, sure, OLD, empty_weight=0.0)
        assert not found.labels.any()
        assert found.weights.tolist() == [1.0]

    @pytest.mark.parametrize("empty_weight", [0.0, 1.0])
    def test_the_weight_is_the_share_of_background_kept_and_given_where_there_is_none(self, empty_weight):
        labels = torch.tensor([[[0, 0, 0, 4]], [[3, 4, 255, 3]]])
        batch = Batch(torch.zeros(2), labels, ("a", "b"), torch.zeros(2, SEEN, dtype=torch.bool))
        said, sure = torch.ones_like(labels), torch.tensor([[[True, False, False, True]], [[True] * 4]])
        found = pseudo_labelled(batch, said, sure, OLD, empty_weight)
        assert found.labels.tolist() == [[[1, 255, 255, 4]], [[3, 4, 255, 3]]]
        assert found.weights.tolist() == pytest.approx([1 / 3, empty_weight])


class TestThresholds:
    def test_paper_thresholds_are_the_median_entropy_of_each_class_on_background(self, give_lesson):
        lesson = give_lesson(PLOP(bins=1000))
        values, classes = [], []
        for batch in lesson.context.loader:
            probabilities = lesson.context.predict_teacher(batch).logits_at(batch.size).softmax(dim=1)
            background = batch.labels == 0
            values.append(entropy(probabilities)[background])
            classes.append(probabilities.argmax(dim=1)[background])
        values, classes = torch.cat(values), torch.cat(classes)
        found = lesson.method.state["thresholds"]
        assert found.shape == (4,)
        for number in range(4):
            own = values[classes == number]
            expected = own.double().quantile(0.5).item() if len(own) else 0.0
            assert found[number].item() == pytest.approx(expected, abs=2e-3)

    def test_half_of_the_background_they_come_from_is_believed(self, give_lesson):
        lesson = give_lesson(PLOP())
        believed = []
        for seen in lesson.context.loader:
            _, teacher = lesson.forward(seen)
            found = lesson.method.relabel(seen, teacher, lesson.context)
            believed.append(found.labels[seen.labels == 0] != 255)
        assert torch.cat(believed).float().mean().item() == pytest.approx(0.5, abs=0.02)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_they_are_kept_in_the_state(self, give_lesson, batch, variant):
        lesson = give_lesson(variant())
        _, teacher = lesson.forward(batch)
        expected = lesson.method.relabel(batch, teacher, lesson.context)
        resumed = variant()
        resumed.load_state_dict(lesson.method.state_dict())
        found = resumed.relabel(batch, teacher, lesson.context)
        assert torch.equal(found.labels, expected.labels)
        assert torch.equal(found.weights, expected.weights)

    def test_released_thresholds_are_never_below_the_floor(self, give_lesson):
        thresholds = give_lesson(PLOPReleased(floor=0.03)).method.state["thresholds"]
        assert (thresholds >= 0.03).all()

    def test_histograms_are_summed_over_ranks(self, give_lesson):
        lesson = give_lesson(PLOP())
        told = []
        lesson.context.ranks = replace(lesson.context.ranks, sum=lambda counts: told.append(counts) or counts * 0)
        lesson.method.before_step(lesson.context)
        assert told[0].shape == (4, 1000)
        assert not lesson.method.state["thresholds"].any()


def test_the_variants_measure_uncertainty_differently(give_lesson, batch):
    uncertainty, thresholds = {}, {}
    for variant in VARIANTS:
        lesson = give_lesson(variant())
        _, teacher = lesson.forward(batch)
        probabilities = teacher.logits_at(batch.size).softmax(dim=1)
        uncertainty[variant] = lesson.method.uncertainty(probabilities, 4)
        thresholds[variant] = lesson.method.state["thresholds"]
    assert uncertainty[PLOP].max() > 3 * uncertainty[PLOPReleased].max()
    assert not torch.allclose(thresholds[PLOP], thresholds[PLOPReleased])


def test_the_variants_cut_maps_that_are_not_square_differently():
    one, two = torch.randn(2, 1, 3, 12, 8)
    paper, released = (local_pod_loss([one], [two], [1.0], 1.0, regions) for regions in ("fit", "square"))
    assert not torch.allclose(paper, released)


def test_the_pod_term_weighs_maps_and_folded_logits_by_growth(give_lesson, batch):
    lesson = give_lesson(PLOP(pod=0.3, pod_logits=0.02))
    student, teacher = lesson.forward(batch)
    old, new = list(teacher.features.values()), list(student.features.values())
    new[-1] = fold_new_classes(new[-1], 3)
    expected = local_pod_loss(old, new, [0.3] * 5 + [0.02], growth=(4 / 1) ** 0.5)
    terms = lesson.method.losses(batch, student, teacher, lesson.context)
    assert torch.allclose(terms["pod"], expected)


def test_each_image_counts_by_its_weight(give_lesson, batch):
    method = PLOP()
    context = give_lesson(method).context
    logits = torch.randn(3, 4, 64, 64, requires_grad=True)
    weights = torch.tensor([0.0, 0.5, 1.0])
    weighted, plain = (
        torch.autograd.grad(
            method.supervise(SegmenterOutput(logits), batch.relabelled(batch.labels, each), context), logits
        )[0]
        for each in (weights, None)
    )
    assert plain.any()
    assert torch.allclose(weighted, weights[:, None, None, None] * plain)

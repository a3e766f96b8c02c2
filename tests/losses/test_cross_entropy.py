"""Supervised terms: what they reduce to, what they ignore, and where replayed labels are truth."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.cross_entropy import cross_entropy, unbiased_cross_entropy

QUICK = settings(max_examples=30, deadline=None)
counts = st.tuples(st.integers(1, 5), st.integers(1, 4))


def random(seed, classes, lowest=0, size=(2, 3, 4)):
    """Logits that want a gradient, and labels lowest..K-1 with some ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size[0], classes, *size[1:], generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(lowest, classes, size, generator=generator)
    labels[torch.rand(size, generator=generator) < 0.2] = 255
    return logits, labels


def gradient(loss, logits):
    return torch.autograd.grad(loss.sum(), logits)[0]


LOSSES = {
    "cross_entropy": cross_entropy,
    "unbiased": lambda logits, labels: unbiased_cross_entropy(logits, labels, 2),
    "unbiased, annotated": lambda logits, labels: unbiased_cross_entropy(
        logits, labels, 2, torch.ones(logits.shape[:2], dtype=torch.bool)
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_no_loss_and_no_gradient(name):
    logits, labels = random(0, 5)
    loss = LOSSES[name](logits, labels)
    ignored = labels == 255
    assert ignored.any()
    assert loss.shape == labels.shape
    assert (loss[ignored] == 0).all()
    assert (loss[~ignored] > 0).all()
    by_pixel = gradient(loss, logits).abs().sum(dim=1)
    assert (by_pixel[ignored] == 0).all()
    assert (by_pixel[~ignored] > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_adding_a_constant_to_all_logits_changes_nothing(name):
    logits, labels = random(1, 5)
    assert torch.allclose(LOSSES[name](logits, labels), LOSSES[name](logits + 50, labels))


@QUICK
@given(st.integers(2, 8), st.integers(0, 999))
def test_unbiased_is_plain_when_background_is_the_only_old_class(classes, seed):
    logits, labels = random(seed, classes)
    plain, unbiased = cross_entropy(logits, labels), unbiased_cross_entropy(logits, labels, old_classes=1)
    assert torch.allclose(plain, unbiased)
    assert torch.allclose(gradient(plain, logits), gradient(unbiased, logits))


@QUICK
@given(counts, st.integers(0, 999))
def test_unbiased_is_plain_when_all_old_classes_were_annotated(count, seed):
    old, new = count
    logits, labels = random(seed, old + new)
    annotated = torch.ones(2, old + new, dtype=torch.bool)
    assert torch.allclose(cross_entropy(logits, labels), unbiased_cross_entropy(logits, labels, old, annotated))


@QUICK
@given(counts, st.integers(0, 999))
def test_background_may_be_any_old_class(count, seed):
    old, new = count
    logits, _ = random(seed, old + new)
    labels = torch.zeros(2, 3, 4, dtype=torch.int64)
    expected = -logits.softmax(dim=1)[:, :old].sum(dim=1).log()
    assert torch.allclose(unbiased_cross_entropy(logits, labels, old), expected)


def test_unannotated_old_labels_count_as_background():
    logits, labels = random(3, 6)
    as_background = labels.where((labels >= 4) | (labels == 0), 0)
    new_ones = torch.arange(6).expand(2, 6) >= 4
    for annotated in (None, new_ones):
        loss = unbiased_cross_entropy(logits, labels, 4, annotated)
        assert torch.equal(loss, unbiased_cross_entropy(logits, as_background, 4))


@pytest.mark.parametrize("old_label", [1, 2, 3])
def test_an_annotated_old_label_is_truth(old_label):
    logits, _ = random(4, 6)
    labels = torch.full((2, 3, 4), old_label)
    annotated = torch.zeros(2, 6, dtype=torch.bool)
    annotated[0, old_label] = True  # the first image is an exemplar, the second is of this step
    annotated[1, 4:] = True
    loss = unbiased_cross_entropy(logits, labels, 4, annotated)
    assert torch.allclose(loss[0], cross_entropy(logits, labels)[0])
    slope = gradient(loss, logits)
    assert (slope[0, old_label] < 0).all()
    assert (slope[0, [c for c in range(6) if c != old_label]] > 0).all()
    assert torch.allclose(loss[1], unbiased_cross_entropy(logits, labels, 4)[1])


def test_background_does_not_hide_an_annotated_old_class():
    logits, _ = random(5, 6)
    labels = torch.zeros(2, 3, 4, dtype=torch.int64)
    annotated = torch.arange(6).expand(2, 6) >= 4
    annotated[0, 2] = True
    loss = unbiased_cross_entropy(logits, labels, 4, annotated)
    meant = logits.softmax(dim=1)[0, [0, 1, 3]].sum(dim=0)
    assert torch.allclose(loss[0], -meant.log())
    assert (gradient(loss, logits)[0, 2] > 0).all(), "the annotated class is pushed down where it is not"


def test_background_of_an_exemplar_hides_the_classes_that_came_after_it():
    logits, _ = random(5, 6)
    labels = torch.zeros(2, 3, 4, dtype=torch.int64)
    annotated = torch.zeros(2, 6, dtype=torch.bool)
    annotated[:, 2] = True  # seen at a step that brought class 2; classes 4 and 5 are new now
    loss = unbiased_cross_entropy(logits, labels, 4, annotated)
    assert torch.allclose(loss, -logits.softmax(dim=1)[:, [0, 1, 3, 4, 5]].sum(dim=1).log())
    slope = gradient(loss, logits)
    assert (slope[:, 2] > 0).all()
    assert (slope[:, [0, 1, 3, 4, 5]] < 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_huge_logits_stay_finite(name):
    logits, labels = random(6, 5)
    huge = (logits * 1e4).float().detach().requires_grad_()
    loss = LOSSES[name](huge, labels)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss, huge)).all()

"""Sums per class without a loop over classes, against loops; classes that are not there; the released code's reading."""

from math import exp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.prototypes import (
    attraction,
    class_errors,
    class_means,
    class_sums,
    matching,
    mean_over_classes,
    nearest,
    repulsion,
    update_prototypes,
)
from contseg.losses.released_sdr import (
    misread_errors,
    misread_sums,
    released_attraction,
    released_repulsion,
    without_lowest,
)
from contseg.losses.sparsity import class_maxima, sparsity

CLASSES, DEPTH = 5, 3


@st.composite
def maps(draw):
    """Features and labels of up to three images; any classes, maybe none, may be there."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    there = torch.tensor([*draw(st.sets(st.integers(0, CLASSES - 1), max_size=CLASSES)), 255])
    labels = there[torch.randint(0, len(there), shape, generator=generator)]
    features = torch.randn(shape[0], DEPTH, *shape[1:], generator=generator, dtype=torch.float64)
    return features.requires_grad_(), labels


def pixels(features, labels, number):
    """The features of a class: (n, D)."""
    return features.movedim(1, 3)[labels == number]


def released_pixels(features, labels, number, pixels_first=False):
    """The same as the released code reads it: masked as it lies in memory, then viewed."""
    mask = (labels == number).unsqueeze(1).expand_as(features)
    return features[mask].view(-1, DEPTH) if pixels_first else features[mask].view(DEPTH, -1).mT


def same_gradients(one, other, features):
    found, expected = (torch.autograd.grad(value, features, retain_graph=True)[0] for value in (one, other))
    return torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(maps())
def test_sums_means_and_errors_are_those_of_loops_over_classes(case):
    features, labels = case
    prototypes = torch.randn(CLASSES, DEPTH, dtype=torch.float64)
    sums, counts = class_sums(features, labels, CLASSES)
    means, errors = class_means(sums, counts), class_errors(features, labels, prototypes)
    for number in range(CLASSES):
        own = pixels(features, labels, number)
        assert counts[number] == len(own)
        assert torch.allclose(sums[number], own.sum(dim=0))
        assert torch.allclose(means[number], own.sum(dim=0) / max(len(own), 1))
        assert torch.allclose(errors[number], (own - prototypes[number]).square().mean(dim=1).sum())


@settings(max_examples=60, deadline=None)
@given(maps())
def test_the_terms_are_those_of_loops_over_classes_values_and_gradients(case):
    features, labels = case
    prototypes = torch.randn(CLASSES, DEPTH, dtype=torch.float64)
    sums, counts = class_sums(features, labels, CLASSES)
    means, there = class_means(sums, counts), [number for number in range(CLASSES) if (labels == number).any()]
    none = features.sum() * 0
    own = {number: pixels(features, labels, number) for number in there}
    pulled = [(own[number] - prototypes[number]).square().mean() for number in there]
    matched = [(own[number].mean(dim=0) - prototypes[number]).square().mean() for number in there]
    pushed = [1 / (own[a].mean(dim=0) - own[b].mean(dim=0)).norm() for a in there for b in there if a != b]
    for found, parts in (
        (attraction(class_errors(features, labels, prototypes), counts, counts > 0), pulled),
        (matching(means, prototypes, counts > 0), matched),
        (repulsion(means, counts > 0), pushed),
    ):
        expected = torch.stack(parts).mean() if parts else none
        assert found.requires_grad
        assert torch.allclose(found, expected)
        assert same_gradients(found, expected, features)


def ratios_of_sparsity(features, labels):
    """sum exp(g) / sum g of every pixel, class by class."""
    ratios = []
    for number in labels.unique():
        own = pixels(features, labels, number)
        measured = own / (own.max() + 1e-15)
        ratios.append(measured.exp().sum(dim=1) / (measured.sum(dim=1) + 1e-15))
    return torch.cat(ratios)


@settings(max_examples=60, deadline=None)
@given(maps())
def test_sparsity_measures_each_pixel_by_the_maximum_of_its_label(case):
    features, labels = case
    features = features.detach().abs().requires_grad_()
    found = sparsity(features, class_maxima(features, labels)[labels].unsqueeze(1))
    expected = ratios_of_sparsity(features, labels).mean()
    assert torch.allclose(found, expected)
    assert same_gradients(found, expected, features)


@pytest.mark.parametrize("features", [torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), -0.01)])
def test_pixels_in_which_nothing_is_active_have_no_sparsity(features):
    features.requires_grad_()
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    loss = sparsity(features, class_maxima(features, labels)[labels].unsqueeze(1), guarded=True)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(features.grad).all()


def test_released_sparsity_has_no_guards_that_of_the_paper_has():
    features = torch.tensor([[2.0, 1.0, -1.0, -2.0], [1.0, -3.0, -2.0, -4.0]], dtype=torch.float64).view(1, 2, 1, 4)
    labels = torch.tensor([[[0, 0, 1, 1]]])  # with the maxima 2 and -1
    maxima = class_maxima(features, labels)[labels].unsqueeze(1)
    ratios = [(exp(1) + exp(0.5)) / 1.5, -(exp(0.5) + exp(-1.5)), (exp(1) + exp(2)) / 3, (exp(2) + exp(4)) / 6]
    assert sparsity(features, maxima).item() == pytest.approx(sum(ratios) / 4)
    assert sparsity(features, maxima, guarded=True).item() == pytest.approx(ratios[0] / 4)


@settings(max_examples=60, deadline=None)
@given(maps())
def test_released_sparsity_is_that_of_a_loop_whatever_the_signs(case):
    features, labels = case
    found = sparsity(features, class_maxima(features, labels)[labels].unsqueeze(1))
    own = [pixels(features, labels, number) for number in labels.unique()]
    everything = sum((each / (each.max() + 1e-15)).sum() for each in own)
    expected = ratios_of_sparsity(features, labels).mean() if everything > 0 else 0 * features.sum()
    assert torch.allclose(found, expected)
    assert same_gradients(found, expected, features)


@pytest.mark.parametrize("guarded", [False, True])
def test_sparsity_of_features_that_add_up_to_nothing_is_0_and_so_is_its_gradient(guarded):
    for features in (torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), -0.01), torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)):
        features = features.clone().requires_grad_()
        loss = sparsity(features, torch.ones(1), guarded=guarded)
        loss.backward()
        assert loss == 0
        assert not features.grad.any()


def test_prototypes_are_means_over_all_batches():
    features = torch.randn(6, DEPTH, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, CLASSES - 1, (6, 4, 4))  # the last class never comes
    prototypes, counts = torch.zeros(CLASSES, DEPTH, dtype=torch.float64), torch.zeros(CLASSES, dtype=torch.int64)
    for some in ([0], [1, 2, 3], [4, 5]):
        prototypes, counts = update_prototypes(prototypes, counts, *class_sums(features[some], labels[some], CLASSES))
    sums, total = class_sums(features, labels, CLASSES)
    assert torch.equal(counts, total)
    assert torch.allclose(prototypes, class_means(sums, total))
    assert not prototypes[-1].any()


def test_running_means_stay_exact_when_counts_are_large():
    prototypes, counts = torch.full((1, DEPTH), 0.1), torch.tensor([3 * 10**9])
    for _ in range(1000):
        prototypes, counts = update_prototypes(prototypes, counts, torch.full((1, DEPTH), 10.0), torch.tensor([100]))
    assert torch.equal(prototypes, torch.full((1, DEPTH), 0.1))
    assert counts == 3 * 10**9 + 10**5


@pytest.mark.parametrize("offset", [0.0, 1e-6])
def test_means_that_are_equal_to_rounding_do_not_push_each_other(offset):
    means = torch.tensor([[1.0, 2.0], [1.0, 2.0 + offset], [4.0, 6.0]], requires_grad=True)
    loss = repulsion(means, torch.tensor([True, True, True]))
    loss.backward()
    assert loss.item() == pytest.approx(1 / 5)
    assert means.grad.abs().max() < 1


def test_released_means_that_are_equal_to_rounding_push_each_other():
    means = torch.tensor([[1.0, 2.0], [1.0, 2.0 + 1e-6], [4.0, 6.0], [4.0, 6.0]], requires_grad=True)
    there = torch.tensor([True, True, True, True])
    distances = [(a - b).norm().item() for a in means for b in means if not torch.equal(a, b)]
    loss = released_repulsion(means, there)
    loss.backward()
    assert loss.item() == pytest.approx(sum(1 / each for each in distances) / len(distances))
    assert loss > 1e4
    assert torch.isfinite(means.grad).all()
    assert released_repulsion(means[2:], there[2:]) == 0, "only pairs at distance 0"
    assert released_repulsion(means, torch.tensor([True, False, False, False])) == 0, "a class alone"
    assert released_repulsion(torch.tensor([[torch.nan], [1.0]]), there[:2]).isnan()


def test_what_a_class_that_is_not_there_holds_does_not_matter():
    values = torch.tensor([1.0, torch.nan], requires_grad=True)
    loss = mean_over_classes(values, torch.tensor([True, False]))
    loss.backward()
    assert loss == 1
    assert values.grad.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("size", "small"), [((48, 40), (6, 5)), ((33, 33), (5, 5)), ((513, 513), (33, 33)), ((7, 5), (7, 5))]
)
def test_labels_are_taken_at_the_nearest_pixel(size, small):
    labels = torch.randint(0, 256, (2, *size))
    expected = torch.nn.functional.interpolate(labels.unsqueeze(1).double(), small, mode="nearest").squeeze(1).long()
    assert torch.equal(nearest(labels, small), expected)


class TestReleased:
    @settings(max_examples=60, deadline=None)
    @given(maps(), st.booleans())
    def test_channels_are_mixed_up_as_a_view_of_masked_features_mixes_them(self, case, pixels_first):
        features, labels = case
        prototypes = torch.randn(CLASSES, DEPTH, dtype=torch.float64)
        layout = "pixels first" if pixels_first else "channels first"
        sums, counts = misread_sums(features, labels, CLASSES, layout)
        errors = misread_errors(features, labels, prototypes, layout)
        for number in range(CLASSES):
            own = released_pixels(features, labels, number, pixels_first)
            assert counts[number] == len(own)
            assert torch.allclose(sums[number], own.sum(dim=0))
            assert torch.allclose(errors[number], (own - prototypes[number]).square().mean(dim=1).sum())
            assert same_gradients(sums[number].sin().sum(), own.sum(dim=0).sin().sum(), features)

    @settings(max_examples=30, deadline=None)
    @given(maps())
    def test_one_image_is_read_right(self, case):
        features, labels = case[0][:1], case[1][:1]
        assert torch.allclose(misread_sums(features, labels, CLASSES)[0], class_sums(features, labels, CLASSES)[0])

    def test_attraction_divides_at_every_class(self):
        errors, counts = torch.tensor([5.0, 7.0, 0.0, 9.0]), torch.tensor([1, 2, 0, 3])
        running = 0.0
        for mean in (5.0, 3.5, 3.0):
            running = (running + mean) / 3
        assert released_attraction(errors, counts, counts > 0) == pytest.approx(running)
        assert released_attraction(errors, counts * 0, counts < 0) == 0

    def test_the_lowest_class_that_is_there_is_taken_for_background(self):
        assert without_lowest(torch.tensor([False, True, False, True])).tolist() == [False, False, False, True]
        assert not without_lowest(torch.tensor([False, True])).any()
        assert not without_lowest(torch.tensor([False, False])).any()

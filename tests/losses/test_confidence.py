"""Entropy and the thresholds made from its histogram."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.confidence import class_histogram, entropy, first_best, histogram_median, mean_entropy, released_median

QUICK = settings(max_examples=60, deadline=None)
odd_many = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=41).filter(lambda values: len(values) % 2)


def probabilities(classes, certain):
    logits = torch.zeros(1, classes, 1, 1, dtype=torch.float64)
    logits[:, 0] = certain
    return logits.softmax(dim=1)


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_entropy_is_one_for_no_idea_and_zero_for_certainty(classes):
    assert entropy(probabilities(classes, 0.0)).item() == pytest.approx(1.0)
    certain = torch.zeros(1, classes, 1, 1)
    certain[:, 0] = 1.0
    assert entropy(certain).item() == 0.0
    assert 0 < entropy(probabilities(classes, 2.0)) < entropy(probabilities(classes, 1.0)) < 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), count=st.sampled_from([1, 2, 7, 254, 255, 256, 300]), levels=st.integers(1, 5))
def test_the_first_best_class_is_that_of_argmax_also_among_equal_scores(seed, count, levels):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (2, count, 3, 5), generator=generator).float()
    assert torch.equal(first_best(scores), scores.argmax(dim=1))


def test_entropy_of_one_class_is_zero():
    assert entropy(torch.ones(1, 1, 2, 2)).tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("classes", [2, 16])
def test_released_entropy_is_a_mean_over_classes(classes):
    some = probabilities(classes, 1.0)
    assert mean_entropy(some).item() == pytest.approx(entropy(some).item() / classes, rel=1e-5)


@QUICK
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 3)), max_size=40), st.integers(1, 50))
def test_the_histogram_counts_every_value_in_the_row_of_its_class(pairs, bins):
    values = torch.tensor([value for value, _ in pairs], dtype=torch.float32)
    classes = torch.tensor([number for _, number in pairs], dtype=torch.int64)
    histogram = class_histogram(values, classes, 4, bins)
    for number in range(4):
        expected = np.zeros(bins, dtype=int)
        for value in values[classes == number].tolist():
            expected[min(int(np.float32(value) * np.float32(bins)), bins - 1)] += 1
        assert histogram[number].tolist() == expected.tolist()


@QUICK
@given(st.lists(odd_many, min_size=1, max_size=4), st.sampled_from([10, 100, 1000]))
def test_the_median_is_numpys_within_one_bin(groups, bins):
    values = torch.tensor([value for group in groups for value in group], dtype=torch.float32)
    classes = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    found = histogram_median(class_histogram(values, classes, len(groups), bins))
    expected = [np.median(np.array(group, np.float32)) for group in groups]
    assert np.abs(found.numpy() - expected).max() <= 1 / bins + 1e-6


def test_between_two_halves_the_median_is_the_end_of_the_lower():
    assert histogram_median(torch.tensor([[2, 0, 0, 2]])).item() == pytest.approx(0.25)


def test_a_class_without_values_has_median_zero():
    histogram = torch.zeros(2, 10, dtype=torch.int64)
    histogram[1, 4] = 3
    assert histogram_median(histogram).tolist() == pytest.approx([0.0, 0.45])
    assert released_median(histogram)[0] == 0


def test_the_released_median_is_right_while_half_is_in_the_first_bin():
    histogram = torch.zeros(1, 100, dtype=torch.int64)
    histogram[0, 0], histogram[0, 3] = 8, 4
    assert released_median(histogram).item() == pytest.approx(6 / 8 / 100)
    assert histogram_median(histogram).item() == pytest.approx(6 / 8 / 100)


def test_the_released_median_can_be_infinite_where_the_true_one_is_not():
    histogram = torch.full((1, 100), 200, dtype=torch.int64)
    histogram[0, -1] = 0
    assert math.isinf(released_median(histogram).item())
    assert histogram_median(histogram).item() == pytest.approx(0.495)

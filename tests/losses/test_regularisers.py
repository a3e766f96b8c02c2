"""Importance-weighted pulls: what they weigh, and what moves the weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.regularisers import (
    add_penalty_gradients,
    normalise,
    path_integral,
    path_per_distance,
    path_per_divergence,
    penalty,
    running_fisher,
)

QUICK = settings(max_examples=30, deadline=None)
SHAPES = ((3, 4), (5,), (2, 1, 2))


def tensors(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


@QUICK
@given(st.integers(0, 999), st.floats(0.01, 100), st.floats(-10, 10))
def test_importances_of_a_tensor_lie_between_0_and_1_whatever_their_scale(seed, scale, shift):
    for value in tensors(seed):
        stretched = normalise(value)
        assert stretched.min() == 0
        assert 1 - 1e-6 < stretched.max() <= 1
        assert torch.allclose(normalise(scale * value + shift), stretched, atol=1e-5)


def test_equal_importances_weigh_nothing():
    assert not normalise(torch.full((3,), 7.0)).any()


@QUICK
@given(st.integers(0, 999))
def test_the_gradient_is_that_of_the_penalty(seed):
    parameters = [value.requires_grad_() for value in tensors(seed)]
    anchors, strengths = tensors(seed + 1), tensors(seed + 2)
    expected = torch.autograd.grad(penalty(parameters, anchors, strengths), parameters)
    gradients = [torch.ones_like(value) for value in parameters]
    with torch.no_grad():
        add_penalty_gradients(gradients, parameters, anchors, strengths, weight=3.0)
    for gradient, slope in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, 1 + 3 * slope)


def test_no_other_function_changes_what_it_is_given():
    given = [tensors(seed) for seed in range(4)]
    copies = [[value.clone() for value in values] for values in given]
    penalty(*given[:3])
    running_fisher(*given[:2])
    path_integral(*given[:3])
    path_per_divergence(*given)
    for values, before in zip(given, copies, strict=True):
        assert all(torch.equal(value, copy) for value, copy in zip(values, before, strict=True))


def test_a_running_fisher_forgets_where_it_began():
    fishers, gradients = [torch.ones(1, dtype=torch.float64)], [torch.full((1,), 3.0, dtype=torch.float64)]
    for _ in range(10):
        fishers = running_fisher(fishers, gradients, alpha=0.5)
    assert fishers[0].item() == pytest.approx(9 - 8 * 0.5**10)


def test_a_path_along_the_gradient_counts_and_one_against_it_does_not():
    start, step = torch.zeros(2), torch.tensor([-0.1, 0.1])
    path = path_integral([torch.ones(2)], [start], [start + step])[0]
    assert torch.allclose(path, torch.tensor([0.1, -0.1]))
    assert torch.allclose(path_per_distance(path, start + step, start), torch.tensor([10.0, 0.0]))


def test_what_never_moved_has_no_importance_rather_than_an_infinite_one():
    still = torch.zeros(2)
    assert not path_per_distance(path_integral([torch.ones(2)], [still], [still])[0], still, still).any()
    assert not path_per_divergence([torch.ones(2)], [still], [still], [torch.zeros(2)])[0].any()


def test_the_same_gain_counts_less_where_predictions_changed_more():
    flat, curved = path_per_divergence([torch.ones(2)], [torch.ones(2)], [torch.zeros(2)], [torch.tensor([1.0, 4.0])])[0]
    assert math.isclose(flat, 4 * curved, rel_tol=1e-6)

"""Relevance maps of LAG: what they compare, and that one update cannot wreck a run."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contseg.losses.decoupling import normalised_relevance, relevance, relevance_divergence

TEACHER = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
UNIFORM = 0.1


def mixed(maps, share=UNIFORM):
    return (1 - share) * maps + share / maps.shape[1]


def test_the_divergence_is_that_of_maps_mixed_with_the_uniform_one():
    student = torch.tensor([[0.7, 0.3, 0.0, 0.0]], dtype=torch.float64)
    expected = (mixed(TEACHER) * (mixed(TEACHER) / mixed(student)).log()).sum(dim=1)
    assert torch.allclose(relevance_divergence(student, TEACHER), expected, rtol=1e-12)
    assert relevance_divergence(student, TEACHER).item() == pytest.approx(
        0.385 * math.log(0.385 / 0.655) + 0.205 * math.log(8.2) + 0.115 * math.log(4.6)
    )


def test_maps_that_agree_cost_nothing_even_where_they_are_zero():
    maps = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert relevance_divergence(maps, maps).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4, 1e-6, 1e-9, 0.0, -1e-3])
def test_the_slope_stays_bounded_where_the_student_stops_to_look(strength):
    x = torch.tensor([[2.0, 1.5, 1.0, strength]], dtype=torch.float64, requires_grad=True)
    student = relevance(torch.ones(1, 1, 1, 4, dtype=torch.float64), x.view(1, 1, 1, 4))
    relevance_divergence(student, TEACHER).sum().backward()
    places, total = 4, x.detach().clamp(min=0).sum()
    assert x.grad.abs().max() <= places * mixed(TEACHER).max() / UNIFORM / total


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(0, 5))
def test_the_divergence_is_finite_and_not_negative_for_any_two_maps(values, rolled):
    student = normalised_relevance(torch.tensor([values], dtype=torch.float64))
    teacher = student.roll(rolled, dims=1)
    divergence = relevance_divergence(student, teacher)
    assert divergence.isfinite().all()
    assert (divergence > -1e-9).all()


def test_a_map_that_has_almost_faded_is_divided_by_the_floor():
    faded = torch.tensor([[1e-6, 3e-6]])
    assert torch.allclose(normalised_relevance(faded), torch.tensor([[0.25, 0.75]]))
    assert torch.allclose(normalised_relevance(faded, floor=1.0), faded)

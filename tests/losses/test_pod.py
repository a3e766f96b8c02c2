"""Local POD: strip averages of regions that follow the map's shape, and distances that can be trained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.pod import fold_new_classes, local_pod_distance, local_pod_embedding, local_pod_loss

QUICK = settings(max_examples=40, deadline=None)
sides = st.integers(1, 13)


def maps(seed, height, width, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)


def embedded_by_hand(features, scales):
    """The definition, region by region."""
    strips = []
    for scale in scales:
        rows, columns = features.shape[2] // scale, features.shape[3] // scale
        for i in range(scale):
            for j in range(scale):
                region = features[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
                strips += [region.mean(dim=3).flatten(1), region.mean(dim=2).flatten(1)]
    return torch.cat(strips, dim=1)


@QUICK
@given(st.integers(4, 13), st.integers(4, 13), st.integers(0, 99))
def test_regions_fit_maps_that_are_not_square(height, width, seed):
    features = maps(seed, height, width)
    assert torch.allclose(local_pod_embedding(features), embedded_by_hand(features, (1, 2, 4)))


@QUICK
@given(st.integers(4, 13), st.integers(0, 99))
def test_fit_and_square_agree_on_square_maps(side, seed):
    features = maps(seed, side, side)
    assert torch.equal(local_pod_embedding(features, regions="fit"), local_pod_embedding(features, regions="square"))


@QUICK
@given(sides, sides, st.integers(0, 99))
def test_fit_is_finite_for_every_map_however_small(height, width, seed):
    assert torch.isfinite(local_pod_embedding(maps(seed, height, width))).all()


def test_a_transposed_map_has_the_same_strips_in_another_order():
    features = maps(0, 8, 12)
    here, there = (local_pod_embedding(each).sort(dim=1).values for each in (features, features.transpose(2, 3)))
    assert torch.allclose(here, there)


def test_embedding_is_linear():
    one, two = maps(0, 8, 6), maps(1, 8, 6)
    together = local_pod_embedding(2 * one - two)
    assert torch.allclose(together, 2 * local_pod_embedding(one) - local_pod_embedding(two))


def test_the_distance_is_that_of_the_embedded_squares():
    old, new = maps(0, 8, 6), maps(1, 8, 6)
    expected = (local_pod_embedding(old.square()) - local_pod_embedding(new.square())).norm(dim=1)
    assert torch.allclose(local_pod_distance(old, new), expected)


def test_equal_maps_have_no_distance_and_a_finite_gradient():
    old = maps(0, 8, 8)
    new = old.clone().requires_grad_()
    distance = local_pod_distance(old, new)
    assert (distance == 0).all()
    assert torch.isfinite(torch.autograd.grad(distance.sum(), new)[0]).all()


def test_the_gradient_leads_towards_the_old_map():
    old, new = maps(0, 8, 8), maps(1, 8, 8).requires_grad_()
    before = local_pod_distance(old, new)
    slope = torch.autograd.grad(before.sum(), new)[0]
    assert (local_pod_distance(old, new.detach() - 0.01 * slope) < before).all()


@pytest.mark.parametrize("new_classes", [0, 1, 3])
def test_folding_adds_new_logits_to_background_and_keeps_old_ones(new_classes):
    logits = maps(0, 4, 4, channels=3 + new_classes)
    folded = fold_new_classes(logits, 3)
    assert torch.allclose(folded[:, 0], logits[:, 0] + logits[:, 3:].sum(dim=1))
    assert torch.equal(folded[:, 1:], logits[:, 1:3])


def test_the_loss_is_the_mean_of_weighted_distances_times_growth():
    old, new = [maps(0, 8, 8), maps(1, 4, 4)], [maps(2, 8, 8), maps(3, 4, 4)]
    first, second = (local_pod_distance(a, b).mean() for a, b in zip(old, new, strict=True))
    assert torch.allclose(local_pod_loss(old, new, [0.5, 0.1], 3.0), 3.0 * (0.5 * first + 0.1 * second) / 2)
    with pytest.raises(ValueError, match="zip"):
        local_pod_loss(old, new, [0.5], 3.0)

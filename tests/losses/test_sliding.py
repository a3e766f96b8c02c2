"""Averages over windows and channels in parts: the values and gradients of plain pooling, whatever the parts."""

import pytest
import torch
from torch.nn import functional

from contseg.losses import sliding
from contseg.losses.pooled_cube import WINDOWS, channel_distance, spatial_distance
from contseg.losses.sliding import box_sums


def pooled_over_windows(old, new, windows):
    """Eq. 6 by PyTorch's pooling."""
    difference = old.square() - new.square()
    pooled = [functional.avg_pool2d(difference, side, 1, side // 2) for side in windows]
    return torch.stack([one.flatten(1).norm(dim=1).mean() for one in pooled]).mean()


def pooled_over_channels(old, new):
    """Eq. 7 by PyTorch's pooling."""
    difference = (old.square() - new.square()).flatten(2).transpose(1, 2)
    pooled = functional.avg_pool1d(difference, 3, 1, 1)
    return pooled.flatten(1).norm(dim=1).mean()


def value_and_gradient(function, old, new, *rest):
    new = new.clone().requires_grad_()
    value = function(old, new, *rest)
    (gradient,) = torch.autograd.grad(value, new)
    return value.detach(), gradient


def maps(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("side", [1, 2, 3, 7, 12, 24])
def test_a_sum_of_neighbours_is_the_sum_of_its_terms(side):
    x = torch.arange(30, dtype=torch.float64).square()
    assert box_sums(x, side, 0).tolist() == [x[first : first + side].sum() for first in range(30 - side + 1)]


@pytest.mark.parametrize("chunk", [1, 100, 1 << 17])
@pytest.mark.parametrize("shape", [(2, 5, 9, 13), (1, 3, 30, 26), (3, 1, 1, 1)])
@pytest.mark.parametrize("windows", [WINDOWS, (1, 3), (5, 2)])
def test_windows_are_those_of_pooling(monkeypatch, chunk, shape, windows):
    monkeypatch.setattr(sliding, "CHUNK", chunk)
    old, new = maps(*shape)
    ours = value_and_gradient(spatial_distance, old, new, windows)
    torch.testing.assert_close(ours, value_and_gradient(pooled_over_windows, old, new, windows), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 100, 1 << 17])
@pytest.mark.parametrize("shape", [(2, 5, 9, 13), (1, 2, 3, 4), (3, 1, 1, 1)])
def test_neighbouring_channels_are_those_of_pooling(monkeypatch, chunk, shape):
    monkeypatch.setattr(sliding, "CHUNK", chunk)
    old, new = maps(*shape)
    ours = value_and_gradient(channel_distance, old, new)
    torch.testing.assert_close(ours, value_and_gradient(pooled_over_channels, old, new), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("distance", [spatial_distance, channel_distance])
def test_equal_maps_have_no_distance_and_no_gradient(distance):
    old, _ = maps(2, 4, 6, 6)
    value, gradient = value_and_gradient(distance, old, old)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("distance", [spatial_distance, channel_distance])
def test_an_image_that_has_not_changed_leaves_the_others_their_gradient(distance):
    old, new = maps(2, 4, 6, 6)
    new[0] = old[0]
    _, gradient = value_and_gradient(distance, old, new)
    assert gradient.isfinite().all()
    assert not gradient[0].any()
    assert gradient[1].any()

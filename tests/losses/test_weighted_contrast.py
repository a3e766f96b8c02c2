"""Contrast in blocks: the same number and gradient as all pairs at once, in memory that grows with the positions."""

import pytest
import torch
from torch.nn import functional

from contseg.losses import weighted_contrast as module
from contseg.losses.weighted_contrast import ContrastSet, weighted_contrast


def positions(anchors=12, others=7, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(anchors, 5, generator=generator, dtype=torch.float64).requires_grad_()
    rest = torch.randn(others, 5, generator=generator, dtype=torch.float64)
    vectors = functional.normalize(torch.cat([features.detach(), rest]), dim=1)
    labels = torch.randint(1, classes + 1, (anchors + others,), generator=generator)
    scores = torch.rand(anchors + others, 4, generator=generator, dtype=torch.float64).softmax(dim=1)
    truth = torch.rand(anchors + others, generator=generator) < 0.5
    return features, ContrastSet(vectors, labels, scores, truth), torch.arange(anchors)


def by_pairs(features, among, own, temperature):
    """The equation, pair by pair."""
    anchors, losses = functional.normalize(features, dim=1), []
    for row, place in zip(anchors, own.tolist(), strict=True):
        similarity = among.vectors @ row / temperature
        same = among.labels == among.labels[place]
        negative = similarity[~same].exp().sum()
        own_losses = [
            among.joint(torch.tensor([place]))[0, other] * (similarity[other] - (similarity[other].exp() + negative).log())
            for other in range(len(same))
            if same[other] and other != place
        ]
        if own_losses:
            losses.append(-torch.stack(own_losses).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_value_and_gradient_are_those_of_all_pairs(block):
    features, among, own = positions()
    total, count = weighted_contrast(features, among, own, 0.2, block=block)
    expected = by_pairs(features, among, own, 0.2)
    torch.testing.assert_close(total / count, expected)
    found, wanted = (torch.autograd.grad(value, features)[0] for value in (total / count, expected))
    torch.testing.assert_close(found, wanted)


def test_a_block_has_no_more_pairs_than_allowed_however_many_positions(monkeypatch):
    pairs, plain = [], module._block

    def watched(anchors, among, own, temperature, shifted):
        pairs.append(len(anchors) * len(among.labels))
        return plain(anchors, among, own, temperature, shifted)

    monkeypatch.setattr(module, "_block", watched)
    for anchors in (100, 400):
        pairs.clear()
        weighted_contrast(*positions(anchors, 100), block=2000)
        assert sum(pairs) == anchors * (anchors + 100)
        assert max(pairs) <= 2000


def test_without_an_anchor_or_a_positive_it_is_zero_with_a_gradient():
    features, among, own = positions(anchors=3, others=0, classes=3)
    alone = ContrastSet(among.vectors, torch.tensor([1, 2, 3]), among.scores)
    for rows, places in ((features, own), (features[:0], own[:0])):
        total, count = weighted_contrast(rows, alone, places)
        total.backward()
        assert (total, count) == (0, 0)
    assert not features.grad.any()


def test_similarities_of_one_are_finite_in_single_precision():
    vectors = torch.ones(6, 4) / 2
    total, count = weighted_contrast(vectors, ContrastSet(vectors, torch.tensor([1, 1, 1, 2, 2, 2])), torch.arange(6))
    assert total.isfinite()
    assert count == 6

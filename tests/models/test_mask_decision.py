"""Decisions on masks: bands of rows are the whole map, owners and undecided pixels, the head that grows."""

import pytest
import torch

from contseg.data.classes import UNDECIDED
from contseg.errors import ContsegError
from contseg.models import mask_decision
from contseg.models.layers import resize
from contseg.models.mask_classifier import MaskClassifier
from contseg.models.mask_decision import (
    COMFORMER,
    SIMCIS,
    OwnerRule,
    owner_classes,
    panoptic,
    semantic_bands,
    semantic_classes,
)
from contseg.models.output import MaskPrediction

SIZE = (37, 29)


def prediction(seed: int = 0, queries: int = 9, outputs: int = 5) -> MaskPrediction:
    generator = torch.Generator().manual_seed(seed)
    return MaskPrediction(
        4 * torch.randn(2, queries, outputs, generator=generator), 5 * torch.randn(2, queries, 7, 5, generator=generator)
    )


def test_semantic_bands_are_the_whole_map(monkeypatch):
    found = prediction()
    masks = resize(found.mask_logits, SIZE).sigmoid()
    whole = torch.einsum("bqk,bqhw->bkhw", found.class_logits.softmax(dim=2)[..., :-1], masks)
    monkeypatch.setitem(mask_decision.BAND, "cpu", 9 * SIZE[1] * 4)  # four rows of nine queries
    scores = torch.empty_like(whole)
    for image, rows, band in semantic_bands(found, SIZE):
        assert band.shape[1] <= 4
        scores[image, :, rows] = band
    torch.testing.assert_close(scores, whole)
    assert torch.equal(semantic_classes(found, SIZE), scores.argmax(dim=1))


@pytest.mark.parametrize("rule", [OwnerRule(score=0.3), COMFORMER, SIMCIS], ids=["mask2former", "comformer", "simcis"])
def test_owners_in_bands_are_those_of_the_whole_map(rule, monkeypatch):
    found = prediction()
    whole, segments = owner_classes(found, SIZE, rule), panoptic(found, SIZE, {1}, rule)
    monkeypatch.setitem(mask_decision.BAND, "cpu", 1)  # one row
    assert torch.equal(owner_classes(found, SIZE, rule), whole)
    assert torch.equal(panoptic(found, SIZE, {1}, rule)[1].ids, segments[1].ids)
    assert torch.equal(torch.stack([one.class_map() for one in segments]), whole)


@pytest.mark.parametrize("rule", [OwnerRule(), COMFORMER], ids=["mask2former", "comformer"])
def test_without_any_object_everything_is_undecided(rule):
    found = prediction()
    found.class_logits[..., -1] = 100.0
    assert (owner_classes(found, SIZE, rule) == UNDECIDED).all()
    assert [one.classes for one in panoptic(found, SIZE, set(), rule)] == [(), ()]


def test_a_query_that_others_own_is_dropped():
    """The second query owns a quarter of its mask."""
    masks = torch.tensor([9.0, 9.0, 9.0, -9.0]), torch.tensor([8.0, 8.0, 8.0, 8.0])
    found = MaskPrediction(torch.tensor([[[9.0, 0.0, 0.0], [0.0, 8.0, 0.0]]]), torch.stack(masks)[None, :, None])
    assert owner_classes(found, (1, 4), OwnerRule()).tolist() == [[[0, 0, 0, UNDECIDED]]]
    assert owner_classes(found, (1, 4), OwnerRule(overlap=0.2)).tolist() == [[[0, 0, 0, 1]]]


def test_half_precision_is_decided_in_float32():
    found = prediction()
    half = MaskPrediction(found.class_logits.half(), found.mask_logits.half())
    assert next(iter(semantic_bands(half, SIZE)))[2].dtype == torch.float32
    assert owner_classes(half, SIZE, OwnerRule(0.3)).shape == (2, *SIZE)


def test_random_growth_keeps_all_old_logits():
    classifier, queries = MaskClassifier(16, [3, 2]), torch.randn(2, 7, 16)
    before = classifier(queries)
    classifier.grow(4, "random")
    after = classifier(queries)
    assert after.shape[2] == 3 + 2 + 4 + 1
    assert torch.equal(after[..., :5], before[..., :5])
    assert torch.equal(after[..., -1], before[..., -1])


def test_growth_from_no_object_keeps_old_probabilities_and_divides_its_own():
    classifier, queries = MaskClassifier(16, [3, 2]), torch.randn(2, 7, 16)
    before = classifier(queries).softmax(dim=2)
    classifier.grow(4, "no-object")
    after = classifier(queries).softmax(dim=2)
    torch.testing.assert_close(after[..., :5], before[..., :5])
    torch.testing.assert_close(after[..., 5:], (before[..., -1:] / 5).expand(-1, -1, 5))


def test_an_unknown_start_is_refused():
    with pytest.raises(ContsegError, match="'no-object'"):
        MaskClassifier(4, [1]).grow(1, "no-objects")

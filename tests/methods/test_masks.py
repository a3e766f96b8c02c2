"""Pseudo labels on masks, the bank of virtual queries, and the choice of a balanced memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.masks.targets import MaskTargets
from contseg.methods.mask_pseudo_labels import COMFORMER, SIMCIS_SEMANTIC, PseudoRule, pseudo_masks, sigmoid_scores
from contseg.methods.virtual_queries import VirtualQueries
from contseg.models.mask_decision import OwnerRule, query_scores
from contseg.ranks import Ranks
from contseg.scenarios.balanced_memory import balanced_choice, two_stage_choice

RULES = {"comformer": COMFORMER, "balconpas": PseudoRule(), "simcis": SIMCIS_SEMANTIC}
SIZE = (24, 20)


def scored(logits):
    return query_scores(logits, OwnerRule(score=0.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(RULES)))
def test_pseudo_masks_never_take_annotated_pixels_and_never_overlap(seed, name):
    generator = torch.Generator().manual_seed(seed)
    maps = 6 * torch.randn(8, 3, 3, generator=generator)
    truth = MaskTargets(torch.tensor([9]), torch.rand(1, *SIZE, generator=generator) > 0.7)
    found = pseudo_masks(scored(3 * torch.randn(8, 5, generator=generator)), maps, SIZE, RULES[name], truth)
    assert not (found.masks & truth.masks).any()
    assert (found.masks.sum(dim=0) <= 1).all()
    assert found.masks.flatten(1).any(dim=1).all()
    if name == "simcis":
        assert found.classes.tolist() == sorted(set(found.classes.tolist()))


def test_order_of_pseudo_masks():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    maps = torch.full((2, 2, 2), -9.0)
    maps[0, 0], maps[1, 1] = 9.0, 9.0
    assert pseudo_masks(scored(logits), maps, (2, 2), PseudoRule()).classes.tolist() == [1, 0]
    assert pseudo_masks(scored(logits), maps, (2, 2), PseudoRule(by_score=False)).classes.tolist() == [0, 1]


@pytest.mark.parametrize(("rule", "kept"), [(COMFORMER, [0]), (PseudoRule(), [])], ids=["comformer", "balconpas"])
def test_a_mask_half_covered_by_annotation(rule, kept):
    """Of its pixels 70 % remain: more than CoMFormer's half, less than BalConpas' four fifths."""
    maps = torch.full((2, 1, 10), -9.0)
    maps[0] = 9.0
    truth = MaskTargets(torch.tensor([4]), torch.arange(10).view(1, 1, 10) < 3)
    found = pseudo_masks(scored(torch.tensor([[9.0, 0.0], [0.0, 9.0]])), maps, (1, 10), rule, truth)
    assert found.classes.tolist() == kept


def test_no_query_of_the_teacher_takes_part():
    found = pseudo_masks(sigmoid_scores(torch.zeros(3, 4), old=0), torch.zeros(3, 2, 2), SIZE, SIMCIS_SEMANTIC)
    assert len(found.classes) == len(found.masks) == 0


def test_the_bank_keeps_the_newest():
    bank = VirtualQueries.empty(3, 1, capacity=4)
    for value in range(10):
        bank.add(torch.tensor([1, 2]), torch.tensor([[float(value)], [-float(value)]]))
    assert sorted(bank.vectors[1, :, 0].tolist()) == [6, 7, 8, 9]
    assert bank.filled.tolist() == [0, 4, 4]
    bank.add(torch.full((6,), 0), torch.arange(6.0)[:, None])  # more than there is room for
    assert sorted(bank.vectors[0, :, 0].tolist()) == [2, 3, 4, 5]
    bank.add(torch.tensor([0]), torch.tensor([[6.0]]))
    assert sorted(bank.vectors[0, :, 0].tolist()) == [3, 4, 5, 6]


def test_the_bank_survives_saving_and_growing():
    bank = VirtualQueries.empty(1, 2)
    bank.add(torch.tensor([0]), torch.ones(1, 2))
    again = VirtualQueries.from_state({name: value.clone() for name, value in bank.state().items()})
    again.grow(3)
    assert again.filled.tolist() == [1, 0, 0]
    assert again.vectors.shape == (3, 80, 2)


def test_only_filled_classes_are_drawn_by_their_weights():
    bank = VirtualQueries.empty(4, 1)
    bank.add(torch.tensor([0, 2, 3]), torch.tensor([[10.0], [12.0], [13.0]]))
    classes, vectors = bank.draw(torch.tensor([1.0, 100.0, 3.0]), (2, 500), torch.Generator().manual_seed(0))
    assert torch.equal(vectors[..., 0], 10.0 + classes)
    counts = classes.flatten().bincount(minlength=4)
    assert counts[1] == counts[3] == 0  # without features; beyond the weights
    assert 0.70 < float(counts[2] / counts.sum()) < 0.80
    nothing = VirtualQueries.empty(4, 1).draw(torch.ones(4), (2, 3), torch.Generator())
    assert nothing[0].shape == (2, 0)
    assert nothing[1].shape == (2, 0, 1)


def test_the_bank_of_all_ranks():
    banks = [VirtualQueries.empty(2, 1, capacity=2) for _ in range(2)]
    banks[0].add(torch.tensor([0]), torch.tensor([[1.0]]))
    banks[1].add(torch.tensor([0, 0, 1]), torch.tensor([[2.0], [3.0], [4.0]]))

    def gather(tensor):
        name = "filled" if tensor.dtype == torch.int64 else "vectors"
        return torch.stack([getattr(one, name) for one in banks])

    whole = banks[0].gathered(Ranks(gather=gather, count=2))
    assert whole.filled.tolist() == [3, 1]
    assert sorted(whole.vectors[0, :3, 0].tolist()) == [1, 2, 3]
    assert whole.vectors.shape[1] == 4


def test_a_balanced_memory_is_closer_to_its_target_than_the_first_images():
    generator = np.random.default_rng(0)
    presence = (generator.random((60, 6)) < [0.8, 0.4, 0.2, 0.1, 0.1, 0.05]).astype(int)
    target = np.full(6, 1 / 6)

    def distance(rows):
        counts = presence[rows].sum(axis=0)
        return np.abs(counts / counts.sum() - target).sum()

    chosen = balanced_choice(presence, target, 12)
    assert len(set(chosen)) == 12
    assert distance(chosen) < distance(list(range(12))) / 2
    again = two_stage_choice(presence, target, chosen, kept=5, count=12)
    assert set(again[:5]) <= set(chosen)
    assert len(set(again)) == 12
    assert balanced_choice(presence, target, 100) != []

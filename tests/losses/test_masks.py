"""Targets, points, costs, matching and losses of mask classification, against plain formulas."""

import sys
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.losses.masks import points as points_module
from contseg.losses.masks.balanced import balanced_class_loss, token_distillation
from contseg.losses.masks.class_terms import adaptive_distillation
from contseg.losses.masks.criterion import class_loss, class_targets, mask_losses, matching_costs, weighted
from contseg.losses.masks.matching import MORE_TARGETS, assign
from contseg.losses.masks.points import compared, draw_points, uncertain_points, values_at
from contseg.losses.masks.softmax import softmax_mask_losses, softmax_matching_costs
from contseg.losses.masks.targets import MaskTargets
from contseg.scenarios.segments import segment_targets

IGNORE = 255


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_targets_are_the_annotated_classes_and_nothing_else(seed, outputs):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, outputs + 1, (3, 4, 5), generator=generator)
    labels = labels.where(labels < outputs, IGNORE)
    annotated = torch.rand(3, outputs, generator=generator) < 0.5
    for (classes, masks), of_image, marks in zip(segment_targets(labels, None, annotated), labels, annotated, strict=True):
        present = {one for one in of_image.unique().tolist() if one != IGNORE and marks[one]}
        assert classes.tolist() == sorted(present)
        for one, mask in zip(classes, masks, strict=True):
            assert torch.equal(mask, of_image == one)


def plain_value(map_HW, x, y) -> float:
    """Bilinear between centres of pixels; outside is 0."""
    height, width = map_HW.shape
    total = 0.0
    for row in range(height):
        for column in range(width):
            across, down = abs(x * width - 0.5 - column), abs(y * height - 0.5 - row)
            total += max(0.0, 1 - across) * max(0.0, 1 - down) * float(map_HW[row, column])
    return total


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5))
def test_values_at_points(seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 1, height, width, generator=generator, dtype=torch.float64)
    masks = maps > 0
    points = torch.cat(
        [torch.rand(2, 6, 2, generator=generator, dtype=torch.float64), torch.tensor([[[0.0, 1.0]]] * 2)], dim=1
    )
    for one in (maps, masks):
        expected = [[plain_value(one[image, 0], *point) for point in points[image].tolist()] for image in range(2)]
        torch.testing.assert_close(values_at(one, points)[:, 0], torch.tensor(expected, dtype=torch.float64))


def test_pieces_of_points_are_the_whole(monkeypatch):
    maps, masks, points = torch.randn(7, 6, 5), torch.rand(3, 12, 10) > 0.5, torch.rand(50, 2)
    [(values, truth)] = compared(maps, masks, points)
    monkeypatch.setitem(points_module.PIECE, "cpu", 7 * 8)
    pieces = list(compared(maps, masks, points))
    assert len(pieces) == 7
    assert max(one.numel() for one, _ in pieces) <= 7 * 8
    assert torch.equal(torch.cat([one for one, _ in pieces]), values)
    assert torch.equal(torch.cat([one for _, one in pieces], dim=1), truth)


def test_uncertain_points_are_the_candidates_nearest_to_the_edge(monkeypatch):
    maps, drawn = torch.randn(5, 8, 8), draw_points(torch.Generator().manual_seed(0), [3, 2], 9, 16)
    found = uncertain_points(maps, drawn.candidates, drawn.random)
    certainty = values_at(maps[:, None], drawn.candidates)[:, 0].abs()
    for pair in range(5):
        chosen = drawn.candidates[pair][certainty[pair].argsort()[:12]]
        assert {tuple(one) for one in found[pair, :12].tolist()} == {tuple(one) for one in chosen.tolist()}
    assert torch.equal(found[:, 12:], drawn.random)
    monkeypatch.setitem(points_module.PIECE, "cpu", 100)  # two pairs at a time
    assert torch.equal(uncertain_points(maps, drawn.candidates, drawn.random), found)


def example(seed: int = 0, queries: int = 5, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, queries, classes + 1, generator=generator, dtype=torch.float64, requires_grad=True)
    maps = (3 * torch.randn(2, queries, 6, 7, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, classes, (2, 12, 14), generator=generator)
    labels[1] = IGNORE  # an image without any target
    found = [MaskTargets(*one) for one in segment_targets(labels, None, torch.ones(2, classes, dtype=torch.bool))]
    drawn = draw_points(generator, [len(one.classes) for one in found], queries, 40, like=maps.detach())
    return logits, maps, found, drawn


def test_costs_are_the_formulas():
    logits, maps, found, drawn = example()
    [cost, none] = matching_costs(logits, maps, found, drawn.matching)
    assert none.shape == (5, 0)
    sampled = values_at(maps, drawn.matching)[0]
    truth = values_at(found[0].masks[None], drawn.matching[:1])[0]
    for query in range(5):
        for target in range(len(found[0].classes)):
            one, wanted = sampled[query], truth[target]
            chance = logits[0, query].softmax(dim=0)[found[0].classes[target]]
            cross_entropy = functional.binary_cross_entropy_with_logits(one, wanted)
            dice = 1 - (2 * (one.sigmoid() * wanted).sum() + 1) / (one.sigmoid().sum() + wanted.sum() + 1)
            torch.testing.assert_close(cost[query, target], -2 * chance + 5 * cross_entropy + 5 * dice)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_costs_of_extreme_logits_are_finite(scale):
    maps, masks = scale * torch.randn(1, 6, 4, 4), torch.rand(3, 8, 8) > 0.5
    wide, points = maps.double(), torch.rand(1, 64, 2)
    [cost] = matching_costs(torch.zeros(1, 6, 3), maps, [MaskTargets(torch.tensor([0, 1, 1]), masks)], points)
    truth = values_at(masks[None], points)[0].double()
    sampled = values_at(wide, points.double())[0]
    exact = functional.binary_cross_entropy_with_logits(
        sampled[:, None].expand(-1, 3, -1), truth.expand(6, -1, -1), reduction="none"
    ).mean(dim=2)
    share = sampled.sigmoid()
    dice = 1 - (2 * share @ truth.T + 1) / (share.sum(dim=1, keepdim=True) + truth.sum(dim=1) + 1)
    torch.testing.assert_close(cost.double(), 5 * exact + 5 * dice - 2 / 3, rtol=1e-5, atol=1e-5)


def test_assignment_is_the_cheapest():
    cost = torch.rand(4, 3, generator=torch.Generator().manual_seed(3))
    found = assign([cost])
    cheapest = min(sum(cost[query, target] for target, query in enumerate(chosen)) for chosen in permutations(range(4), 3))
    torch.testing.assert_close(cost[found.queries, found.targets].sum(), cheapest)
    assert found.left_out == 0


def test_more_targets_than_queries_are_counted_and_warned_of():
    with pytest.warns(UserWarning, match=MORE_TARGETS[:40]):
        found = assign([torch.rand(2, 5), torch.rand(2, 2)])
    assert found.left_out == 3
    assert found.rows[2:].tolist() == [5 + one for one in found.targets[2:].tolist()]


def test_costs_that_are_no_numbers_do_not_stop_the_assignment():
    found = assign([torch.tensor([[float("nan"), float("inf")], [-1.0, -float("inf")]])])
    assert found.queries.tolist() == [0, 1]


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ContsegError, match="pip install"):
        assign([torch.zeros(1, 1)])


@pytest.mark.parametrize(("costs", "losses"), [(matching_costs, mask_losses), (softmax_matching_costs, softmax_mask_losses)])
def test_images_without_targets_only_have_class_losses(costs, losses):
    logits, maps, found, drawn = example()
    matches = assign(costs(logits, maps, found, drawn.matching))
    classes = class_targets(matches, found, (2, 5), 4)
    assert (classes[1] == 4).all()
    assert sorted(classes[0].tolist()) == sorted([*found[0].classes.tolist(), *[4] * (5 - len(found[0].classes))])
    terms = {"class": class_loss(logits, classes), **losses(maps, found, matches, drawn, 4)}
    weighted(terms).backward()
    assert not maps.grad[1].any()
    assert maps.grad[0].any()
    assert logits.grad[1].any()


@pytest.mark.parametrize("losses", [mask_losses, softmax_mask_losses])
def test_a_batch_without_targets_has_a_loss_of_zero_with_gradients(losses):
    maps = torch.randn(1, 3, 4, 4, requires_grad=True)
    nothing = [MaskTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 8, 8, dtype=torch.bool))]
    drawn = draw_points(torch.Generator(), [0], 3, 8)
    terms = losses(maps, nothing, assign([torch.zeros(3, 0)]), drawn, 1)
    weighted(terms).backward()
    assert all(float(term.detach()) == 0 for term in terms.values())
    assert not maps.grad.any()


def test_memory_of_a_loss_does_not_depend_on_the_size_of_masks():
    """The largest float tensor that is kept for backward has the points or the maps of the pairs, not masks."""
    kept = []
    maps = torch.randn(1, 10, 8, 8, requires_grad=True)
    masks = [MaskTargets(torch.arange(4), torch.rand(4, 512, 512) > 0.5)]
    drawn = draw_points(torch.Generator(), [4], 10, 128)
    matches = assign(matching_costs(torch.randn(1, 10, 5), maps, masks, drawn.matching))
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
        mask_losses(maps, masks, matches, drawn, 4)
    assert max(kept) <= 4 * 128 * 2


def test_balanced_loss_is_the_plain_one_where_annotation_is_complete():
    logits, classes = torch.randn(2, 6, 4), torch.tensor([[0, 3, 3, 1, 3, 3], [3, 3, 2, 3, 3, 3]])
    torch.testing.assert_close(
        balanced_class_loss(logits, classes, torch.tensor([False, False])), class_loss(logits, classes)
    )
    free = logits.clone().requires_grad_()
    balanced_class_loss(free, classes, torch.tensor([False, True])).backward()
    unmatched = classes[1] == 3
    assert not free.grad[1][unmatched].any()
    assert free.grad[1][~unmatched].any()
    every = balanced_class_loss(logits, classes, torch.tensor([True, True]))
    assert torch.isfinite(every)


def test_tokens_without_pseudo_labels_are_not_distilled():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert token_distillation(torch.randn(1, 2, 3), torch.randn(1, 2, 3), nothing, nothing) == 0


def test_distillation_does_not_ask_new_classes_to_be_small():
    """Moving probability from no-object to a new class is free."""
    old = torch.randn(1, 3, 4)
    new = torch.cat([old[..., :3], torch.zeros(1, 3, 2), old[..., 3:]], dim=-1)
    shared = new.clone()
    shared[..., 3:] = (old[..., 3:] - torch.log(torch.tensor(3.0))).expand(-1, -1, 3)
    torch.testing.assert_close(adaptive_distillation(shared, old), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert adaptive_distillation(new, old) > 1e-3

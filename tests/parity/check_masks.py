"""Golden files of mask classification: matching and criterion of Mask2Former and of EoMT."""

import torch

from contseg.losses.masks.costs import class_cost
from contseg.losses.masks.criterion import (
    class_loss,
    class_targets,
    dice_loss,
    loss_points,
    mask_loss,
    mask_losses,
    mask_sums,
    matching_costs,
    weighted,
)
from contseg.losses.masks.matching import Matches, assign
from contseg.losses.masks.points import LayerPoints, values_at
from contseg.losses.masks.targets import MaskTargets
from tests.parity.goldens import Golden, claims, gradients

FLOAT32_WEIGHT = 1e-6
"""The no-object weight of the official code is float32 0.1."""


def targets_of(golden: Golden, prefix: str = "", kind: str = "in") -> list[MaskTargets]:
    labels = golden.numbered(f"{kind}_{prefix}labels_")
    return [MaskTargets(*pair) for pair in zip(labels, golden.numbered(f"{kind}_{prefix}masks_"), strict=True)]


def points_of(golden: Golden, layer: int, batch: int) -> LayerPoints:
    """The recorded points of a layer; an image without targets is not matched, and any points do."""
    drawn = golden.numbered(f"in_match_points_{layer}_")
    matching = torch.cat([*drawn, *[drawn[0]] * (batch - len(drawn))])
    return LayerPoints(matching, golden.tensor(f"in_oversampled_{layer}"), golden.tensor(f"in_random_{layer}"))


def check_points(golden: Golden, layer: int, found: torch.Tensor, certainty: torch.Tensor) -> None:
    """Theirs are sorted by uncertainty, ours are in no order."""
    important = found.shape[1] - golden.arrays[f"in_random_{layer}"].shape[1]
    order = certainty[:, :important].argsort(dim=1)[..., None].expand(-1, -1, 2)
    golden.check(f"out_points_{layer}", torch.cat([found[:, :important].gather(1, order), found[:, important:]], dim=1))


def assignment_of(matches: Matches, images: int) -> list[list[list[int]]]:
    pairs = torch.stack([matches.queries, matches.targets], dim=1)
    return [pairs[matches.images == image].tolist() for image in range(images)]


def expected_assignment(golden: Golden, name: str = "out_assignment") -> list[list[list[int]]]:
    return [[pair for pair in image if pair[0] >= 0] for image in golden.arrays[name].tolist()]


@claims(r"m2f/matching")
def check_matching(golden):
    logits, maps, targets = golden.tensor("in_class_logits"), golden.tensor("in_mask_logits"), targets_of(golden)
    points = torch.cat(golden.numbered("in_points_"))
    for image, (classes, masks) in enumerate(targets):
        sampled = values_at(maps, points)[image]
        truth = values_at(masks[None], points[image : image + 1])[0]
        golden.check(f"out_points_mask_logits_{image}", sampled)
        golden.check(f"out_points_targets_{image}", truth)
        golden.check(f"out_cost_class_{image}", class_cost(logits[image], classes))
        sums = mask_sums(maps[image], targets[image], points[image])
        golden.check(f"out_cost_mask_{image}", sums.cross_entropy())
        golden.check(f"out_cost_dice_{image}", 1 - sums.dice())
    costs = matching_costs(logits, maps, targets, points)
    for image, cost in enumerate(costs):
        golden.check(f"out_cost_{image}", cost)
    assert assignment_of(assign(costs), len(costs)) == expected_assignment(golden)


@claims(r"m2f/mask_losses")
def check_mask_losses(golden):
    logits, masks, number = (
        golden.tensor("in_mask_logits", grad=True),
        golden.tensor("in_masks"),
        golden.meta["number_of_masks"],
    )
    for name, loss in (("mask", mask_loss(logits, masks, number)), ("dice", dice_loss(logits.sigmoid(), masks, number))):
        golden.check(f"out_loss_{name}", loss)
        golden.check(f"grad_loss_{name}", *gradients(loss, logits))


@claims(r"(m2f|eomt)/criterion")
def check_criterion(golden):
    targets, none = targets_of(golden), golden.meta["k"]
    logits, maps = (golden.numbered(f"in_{name}_logits_", grad=True) for name in ("class", "mask"))
    ours = golden.family == "eomt"
    queries, last = golden.meta["q"], len(logits) - 1
    counts = [len(one.classes) for one in targets]
    if ours:  # its number of masks is that of matched pairs
        counts = [min(count, queries) for count in counts]
    number = max(1, sum(counts))
    total = torch.zeros((), dtype=torch.float64)
    for layer, (classes, masks) in enumerate(zip(logits, maps, strict=True)):
        points = points_of(golden, layer, len(targets))
        costs = matching_costs(classes, masks, targets, points.matching)
        for image, cost in enumerate(costs):
            if f"out_cost_{layer}_{image}" in golden.arrays:
                golden.check(f"out_cost_{layer}_{image}", cost)
        matches = assign(costs)
        chosen = matches.of(masks)
        used = loss_points(chosen, points)
        check_points(golden, layer, used, values_at(chosen[:, None], used)[:, 0].abs())
        wanted = class_targets(matches, targets, classes.shape[:2], none)
        terms = {
            "class": class_loss(classes, wanted, golden.meta["no_object"]),
            **mask_losses(masks, targets, matches, points, number),
        }
        for name, term in terms.items():
            theirs = {"class": "cross_entropy" if ours else "ce"}.get(name, name)
            suffix = f"_{layer}" if ours or layer != last else ""
            golden.check(f"out_loss_{theirs}{suffix}", term, FLOAT32_WEIGHT)
        total = total + weighted(terms)
    golden.check("out_total", total, FLOAT32_WEIGHT)
    for name, inputs in (("class", logits), ("mask", maps)):
        for layer, gradient in enumerate(gradients(total, *inputs)):
            golden.check(f"grad_{name}_logits_{layer}", gradient, FLOAT32_WEIGHT)

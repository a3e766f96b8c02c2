"""Golden files of continual mask classification: pseudo labels, BalConpas, SimCIS' losses and ECLIPSE's two functions."""

import numpy as np
import torch

from contseg.losses.masks.balanced import balanced_class_loss, pseudo_matched, token_distillation
from contseg.losses.masks.boxes import boxes_of
from contseg.losses.masks.criterion import class_targets, matching_costs
from contseg.losses.masks.matching import Matches, assign
from contseg.losses.masks.prompts import manipulated_logits, scaled_focal_loss
from contseg.losses.masks.selection import (
    box_losses,
    matched_boxes,
    selection_divergence,
    selection_matching_costs,
    sigmoid_focal_loss,
    virtual_targets,
)
from contseg.methods import mask_pseudo_labels
from contseg.methods.mask_pseudo_labels import PseudoRule, pseudo_masks, sigmoid_scores
from contseg.models.mask_decision import OwnerRule, QueryScores, query_scores
from contseg.scenarios.balanced_memory import balanced_choice, two_stage_choice
from tests.parity.check_masks import (
    FLOAT32_WEIGHT,
    MaskTargets,
    assignment_of,
    expected_assignment,
    targets_of,
)
from tests.parity.goldens import claims, gradients


def check_targets(golden, image: int, found: MaskTargets) -> None:
    golden.check(f"out_labels_{image}", found.classes)
    golden.check(f"out_masks_{image}", found.masks)


@claims(r"comformer/pseudo_labels_(softmax|sigmoid)")
def check_comformer_pseudo_labels(golden):
    meta, softmax = golden.meta, golden.path.stem.endswith("softmax")
    rule = mask_pseudo_labels.COMFORMER
    assert rule.share == meta["area_ratio"]
    rule = rule if softmax else PseudoRule(rule.share, rule.within, "sigmoid", rule.by_score)
    logits, maps = golden.tensor("in_class_logits_old"), golden.tensor("in_mask_logits_old")
    for image, truth in enumerate(targets_of(golden)):
        scored = query_scores(logits[image], OwnerRule(score=meta["threshold"]))
        found = pseudo_masks(scored, maps[image], tuple(meta["image"]), rule, truth)
        check_targets(golden, image, truth.followed_by(found))


@claims(r"balconpas/pseudo_labels")
def check_balconpas_pseudo_labels(golden):
    """Their masks are shares already, and only images without an exemplar's annotation exclude annotated pixels."""
    meta, rule = golden.meta, PseudoRule(golden.meta["area_ratio"], masks="shares")
    labels, scores, masks = (golden.tensor(f"in_teacher_{name}") for name in ("labels", "scores", "masks"))
    for image, truth in enumerate(targets_of(golden)):
        scored = QueryScores(labels[image], scores[image], labels[image] != meta["old_classes"])
        exemplar = image in meta["exemplar"]
        found = pseudo_masks(scored, masks[image], tuple(masks.shape[2:]), rule, None if exemplar else truth)
        check_targets(golden, image, found)


@claims(r"balconpas/criterion")
def check_balconpas(golden):
    meta = golden.meta
    logits, tokens = golden.numbered("in_class_logits_", grad=True), golden.numbered("in_tokens_", grad=True)
    maps, old_tokens = golden.numbered("in_mask_logits_"), golden.numbered("in_tokens_old_")
    pseudo, truth = targets_of(golden, "pseudo_"), targets_of(golden, "gt_")
    incomplete = torch.tensor([image in meta["exemplar"] for image in range(len(truth))])
    targets = [
        own if exemplar else found.followed_by(own) for found, own, exemplar in zip(pseudo, truth, incomplete, strict=True)
    ]
    counts = [len(one.classes) for one in pseudo]  # as released: those of exemplars too
    last, total, chosen = len(logits) - 1, torch.zeros((), dtype=torch.float64), None
    for layer in meta["layer_order"]:
        points = torch.cat(golden.numbered(f"in_match_points_{layer}_"))
        matches = assign(matching_costs(logits[layer], maps[layer], targets, points))
        assert assignment_of(matches, len(targets)) == expected_assignment(golden, f"out_assignment_{layer}")
        chosen = chosen or pseudo_matched(matches, counts)
        classes = class_targets(matches, targets, logits[layer].shape[:2], meta["classes"])
        suffix = "" if layer == last else f"_{layer}"
        loss = balanced_class_loss(logits[layer], classes, incomplete, meta["no_object_weight"])
        golden.check(f"out_loss_ce{suffix}", loss, FLOAT32_WEIGHT)
        distilled = token_distillation(tokens[layer].transpose(0, 1), old_tokens[layer].transpose(0, 1), *chosen)
        golden.check(f"out_loss_med_tokens{suffix}", distilled, FLOAT32_WEIGHT)
        total = total + meta["weights"]["ce"] * loss + meta["weights"]["tokens"] * distilled
    for name, inputs in (("class_logits", logits), ("tokens", tokens)):
        for layer, gradient in enumerate(gradients(total, *inputs)):
            golden.check(f"grad_{name}_{layer}", gradient, FLOAT32_WEIGHT)


@claims(r"balconpas/memory_selection")
def check_memory_selection(golden):
    meta, names = golden.meta, list(golden.meta["presence"])
    presence, target = np.array(list(meta["presence"].values())), np.array(meta["target"])
    stages = meta["two_stage"]
    for expected, chosen in (
        (meta, balanced_choice(presence, target, meta["select"])),
        (stages, two_stage_choice(presence, target, range(5), stages["first_five_select"], meta["select"])),
    ):
        assert [names[row] for row in chosen] == expected["selected"]
        assert presence[chosen].sum(axis=0).tolist() == expected["counts"]


@claims(r"simcis/pseudo_labels_(merged|queries)")
def check_simcis_pseudo_labels(golden):
    meta, merged = golden.meta, golden.path.stem.endswith("merged")
    rule = mask_pseudo_labels.SIMCIS_SEMANTIC if merged else PseudoRule()
    assert rule.share == meta["area_ratio"]
    logits, maps = golden.tensor("in_class_logits_old"), golden.tensor("in_mask_logits_old")
    for image, truth in enumerate(targets_of(golden)):
        scored = sigmoid_scores(logits[image], meta["old_classes"], meta["score_threshold"], meta["temperature"])
        order = scored.scores.argsort(descending=True)
        order = order[scored.kept[order]]
        golden.check(f"out_teacher_labels_{image}", scored.classes[order])
        golden.check(f"out_teacher_scores_{image}", scored.scores[order])
        found = pseudo_masks(scored, maps[image], tuple(meta["image"]), rule, truth)
        check_targets(golden, image, found)
        golden.check(f"out_boxes_{image}", boxes_of(found.masks), 1e-6)


@claims(r"simcis/matching")
def check_simcis_matching(golden):
    points, boxes = torch.cat(golden.numbered("in_points_")), golden.numbered("in_target_boxes_")
    predicted = (golden.tensor(f"in_{name}") for name in ("class_logits", "mask_logits", "boxes"))
    costs = selection_matching_costs(*predicted, targets_of(golden), boxes, points)
    for image, cost in enumerate(costs):
        golden.check(f"out_cost_{image}", cost)
    assert assignment_of(assign(costs), len(costs)) == expected_assignment(golden)


def recorded_matches(golden, counts) -> Matches:
    pairs = [
        (image, query, target, sum(counts[:image]) + target)
        for image, each in enumerate(expected_assignment(golden, "in_assignment"))
        for query, target in each
    ]
    return Matches(*torch.tensor(pairs).T)


@claims(r"simcis/class_loss")
def check_simcis_class_loss(golden):
    meta, logits = golden.meta, golden.tensor("in_class_logits", grad=True)
    labels = golden.numbered("in_labels_")
    targets = [MaskTargets(one, torch.zeros(len(one), 1, 1, dtype=torch.bool)) for one in labels]
    matches = recorded_matches(golden, [len(one) for one in labels])
    classes = class_targets(matches, targets, (len(logits), meta["real_queries"]), logits.shape[2])
    classes = virtual_targets(classes, golden.tensor("in_virtual_labels"))
    loss = sigmoid_focal_loss(logits, classes, meta["number_of_masks"], meta["focal_alpha"], meta["focal_gamma"])
    golden.check("out_loss", loss)
    golden.check("grad_class_logits", *gradients(loss, logits))


@claims(r"simcis/box_losses")
def check_simcis_boxes(golden):
    meta, boxes, of_targets = golden.meta, golden.tensor("in_boxes", grad=True), golden.numbered("in_target_boxes_")
    matches = recorded_matches(golden, [len(one) for one in of_targets])
    terms = box_losses(*matched_boxes(boxes, of_targets, matches), meta["number_of_masks"])
    golden.check("out_loss_bbox", terms["box"])
    golden.check("out_loss_giou", terms["giou"])
    total = sum(meta["weights"][name] * term for name, term in terms.items())
    golden.check("grad_boxes", *gradients(total, boxes))


@claims(r"simcis/consistent_selection")
def check_consistent_selection(golden):
    meta, logits, old = golden.meta, golden.tensor("in_class_logits", grad=True), golden.tensor("in_class_logits_old")
    temperatures = {name: meta[f"temperature_{name}"] for name in ("selection", "decoder")}
    ranges = {"all": slice(None), "old": slice(meta["old_classes"])}
    for name in ("all_selection", "all_decoder", "old_selection"):
        classes, temperature = name.split("_")
        loss = selection_divergence(logits, old, temperatures[temperature], ranges[classes])
        golden.check(f"out_{name}", loss)
        golden.check(f"grad_{name}", *gradients(loss, logits))


@claims(r"eclipse/logit_manipulation")
def check_eclipse(golden):
    meta, logits = golden.meta, golden.tensor("in_class_logits", grad=True)
    golden.check("out_class_logits", manipulated_logits(logits, meta["query_ranges"], meta["classes"], meta["deltas"]))
    loss = scaled_focal_loss(logits, golden.tensor("in_targets"))
    golden.check("out_focal", loss)
    golden.check("grad_focal", *gradients(loss, logits))

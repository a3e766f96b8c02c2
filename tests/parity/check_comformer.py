"""Golden files of CoMFormer: class losses, criterion and the head that grows."""

from contseg.losses.masks import class_terms
from contseg.losses.masks.criterion import class_targets, loss_points, mask_losses, matching_costs, weighted
from contseg.losses.masks.matching import assign
from contseg.losses.masks.points import values_at
from contseg.losses.masks.softmax import softmax_loss_points, softmax_mask_losses, softmax_matching_costs
from contseg.models.mask_classifier import MaskClassifier
from tests.parity.check_masks import FLOAT32_WEIGHT, check_points, points_of, targets_of
from tests.parity.goldens import claims, gradients


@claims(r"comformer/class_losses")
def check_class_losses(golden):
    meta, old, classes = golden.meta, golden.tensor("in_class_logits_old"), golden.tensor("in_targets")
    logits = golden.tensor("in_class_logits", grad=True)
    gamma, count, focal = meta["kd_gamma"], meta["old_classes"], (meta["focal_alpha"], meta["focal_gamma"])
    distillation = class_terms.adaptive_distillation
    losses = {
        "kd_unbiased_adaptive": distillation(logits, old, gamma=gamma),
        "kd_unbiased_adaptive_alpha0.5": distillation(logits, old, gamma=gamma, alpha=0.5),
        "kd_unbiased": distillation(logits, old, gamma=None),
        "kd_plain": distillation(logits, old, unbiased=False, gamma=None),
        "kd_plain_adaptive": distillation(logits, old, unbiased=False, gamma=gamma),
        "kd_plain_over_all": class_terms.plain_distillation(logits, old),
        "l2": class_terms.squared_distance(logits, old),
        "focal": class_terms.focal_loss(logits, classes, *focal),
        "unbiased_ce": class_terms.unbiased_class_loss(logits, classes, count, meta["no_object_weight"]),
        "focal_unbiased_ce": class_terms.focal_unbiased_loss(logits, classes, count, *focal),
    }
    for name, loss in losses.items():
        tolerance = FLOAT32_WEIGHT if name == "unbiased_ce" else 1e-9
        golden.check(f"out_{name}", loss, tolerance)
        golden.check(f"grad_{name}", *gradients(loss, logits), tolerance)


@claims(r"comformer/criterion_(softmax|sigmoid)")
def check_criterion(golden):
    meta, targets, old = golden.meta, targets_of(golden), golden.tensor("in_class_logits_old")
    logits, maps = (golden.numbered(f"in_{name}_logits_", grad=True) for name in ("class", "mask"))
    softmax, last = golden.path.stem.endswith("softmax"), len(logits) - 1
    number = max(1, sum(len(one.classes) for one in targets))
    kd = class_terms.adaptive_distillation(logits[last], old)
    golden.check("out_loss_kd", kd)
    total = meta["weights"]["kd"] * kd
    for layer, (classes, masks) in enumerate(zip(logits, maps, strict=True)):
        points = points_of(golden, layer, len(targets))
        costs = (softmax_matching_costs if softmax else matching_costs)(classes, masks, targets, points.matching)
        for image, cost in enumerate(costs):
            golden.check(f"out_cost_{layer}_{image}", cost)
        matches = assign(costs)
        if softmax:
            used = softmax_loss_points(masks, matches, points)
            certainty = (2 * values_at(matches.of(masks.softmax(dim=1))[:, None], used)[:, 0] - 1).abs()
        else:
            used = loss_points(matches.of(masks), points)
            certainty = values_at(matches.of(masks)[:, None], used)[:, 0].abs()
        check_points(golden, layer, used, certainty)
        wanted = class_targets(matches, targets, classes.shape[:2], meta["classes"])
        losses = (softmax_mask_losses if softmax else mask_losses)(masks, targets, matches, points, number)
        terms = {"class": class_terms.focal_loss(classes, wanted, meta["focal_alpha"], meta["focal_gamma"]), **losses}
        for name, term in terms.items():
            golden.check(f"out_loss_{'ce' if name == 'class' else name}{'' if layer == last else f'_{layer}'}", term)
        total = total + weighted(terms)
    golden.check("out_total", total)
    for name, inputs in (("class", logits), ("mask", maps)):
        for layer, gradient in enumerate(gradients(total, *inputs)):
            golden.check(f"grad_{name}_logits_{layer}", gradient)


@claims(r"comformer/class_head")
def check_class_head(golden):
    """Their first module is no-object's, which comes last in the output."""
    features, (_, *widths) = golden.tensor("in_features"), golden.meta["widths"]
    classifier = MaskClassifier(features.shape[-1], widths[:1]).double()
    for width in widths[1:]:
        classifier.grow(width, "random")
    names = {"none": 0, **{f"steps.{step}": 1 + step for step in range(len(widths))}}
    state = {f"{ours}.{kind}": golden.tensor(f"in_cls.{theirs}.{kind}") for ours, theirs in names.items()
             for kind in ("weight", "bias")}  # fmt: skip
    classifier.load_state_dict(state)
    golden.check("out_class_logits", classifier(features))

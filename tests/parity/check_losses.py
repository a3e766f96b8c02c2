"""Golden files of loss functions: values and gradients."""

import math

import torch

from contseg.losses.confidence import class_histogram, histogram_median, mean_entropy, released_median
from contseg.losses.cross_entropy import cross_entropy, unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.losses.pod import fold_new_classes, local_pod_distance, local_pod_embedding, local_pod_loss
from contseg.methods.plop_released import PLOPReleased
from tests.parity.goldens import claims, gradients


@claims(r"mib/unbiased_ce.*")
def check_unbiased_cross_entropy(golden):
    logits, labels = golden.tensor("in_logits", grad=True), golden.tensor("in_labels")
    loss = unbiased_cross_entropy(logits, labels, golden.meta["old_classes_with_bg"])
    golden.check("out_map", loss)
    over_all, over_valid = loss.mean(), loss.sum() / (labels != 255).sum()
    golden.check("out_mean_all_pixels", over_all)
    golden.check("out_mean_valid_pixels", over_valid)
    golden.check("grad_logits_of_mean_all_pixels", *gradients(over_all, logits))
    golden.check("grad_logits_of_mean_valid_pixels", *gradients(over_valid, logits))


@claims(r"mib/cross_entropy.*")
def check_cross_entropy(golden):
    logits = golden.tensor("in_logits", grad=True)
    loss = cross_entropy(logits, golden.tensor("in_labels"))
    golden.check("out_map", loss)
    golden.check("out_mean_all_pixels", loss.mean())
    golden.check("grad_logits", *gradients(loss.mean(), logits))


@claims(r"mib/unbiased_kd.*")
def check_unbiased_distillation(golden):
    logits, mask = golden.tensor("in_logits", grad=True), golden.tensor("in_mask")
    ends = [name.removeprefix("out_map_") for name in golden.arrays if name.startswith("out_map_")]
    for alpha, end in zip(golden.meta["alphas"], ends, strict=True):
        loss = unbiased_distillation(logits, golden.tensor("in_old_logits"), alpha)
        golden.check(f"out_map_{end}", loss)
        for kind, mean in (("mean", loss.mean()), ("mean_masked", (loss * mask).mean())):
            golden.check(f"out_{kind}_{end}", mean)
            golden.check(f"grad_logits_{kind}_{end}", *gradients(mean, logits))


@claims(r"plop/entropy.*")
def check_entropy(golden):
    probabilities = golden.tensor("in_logits").softmax(dim=1)
    golden.check("in_probabilities", probabilities)
    golden.check("out_entropy", mean_entropy(golden.tensor("in_probabilities")))


@claims(r"plop/local_pod_embedding.*")
def check_local_pod_embedding(golden):
    x = golden.tensor("in_x", grad=True)
    embedding = local_pod_embedding(x, golden.meta.get("spp_scales", (1, 2, 4)), regions="square")
    golden.check("out_embedding", embedding)
    golden.check("grad_x_of_weighted_sum", *gradients((embedding * golden.tensor("in_weight")).sum(), x))


@claims(r"plop/local_pod_loss.*")
def check_local_pod_loss(golden):
    meta = golden.meta
    old, new = golden.numbered("in_old"), golden.numbered("in_new", grad=True)
    folded = [*new[:-1], fold_new_classes(new[-1], old[-1].shape[1])]
    growth = math.sqrt(meta["n_all_classes"] / meta["n_new_classes"])
    scales = meta.get("spp_scales", (1, 2, 4))
    distances = [local_pod_distance(a, b, "square", scales) for a, b in zip(old, folded, strict=True)]
    golden.check("out_distance", torch.stack(distances))
    factors = [meta["pod_factor"]] * (len(old) - 1) + [meta["last_factor"]]
    loss = local_pod_loss(old, folded, factors, growth, "square", scales)
    golden.check("out_loss", loss)
    golden.check("out_loss_without_schedule", local_pod_loss(old, folded, factors, 1.0, "square", scales))
    same = [meta["pod_factor"]] * len(old)
    golden.check("out_loss_without_switch", local_pod_loss(old, folded, same, growth, "square", scales))
    for number, gradient in enumerate(gradients(loss, *new)):
        golden.check(f"grad_new{number}", gradient)


@claims(r"plop/median_thresholds.*")
def check_median_thresholds(golden):
    meta = golden.meta
    classes, bins = sum(meta["classes"]), meta["bins"]
    probabilities = golden.tensor("in_old_logits").flatten(0, 1).softmax(dim=1)
    background = golden.tensor("in_labels").flatten(0, 1) == 0
    if meta["mode"] == "entropy":
        values = mean_entropy(probabilities) / math.log(classes)
    else:
        values = probabilities.amax(dim=1)
    histogram = class_histogram(values[background], probabilities.argmax(dim=1)[background], classes, bins)
    golden.check("out_histogram", histogram)
    golden.check("ref_true_median", histogram_median(histogram))
    released, base = released_median(histogram), meta["base_threshold"]
    bounded = released.clamp(min=base) if meta["mode"] == "entropy" else released.clamp(max=base)
    golden.check("out_thresholds", bounded, tolerance=1e-6)  # float32
    if meta["mode"] == "entropy" and bins == 100:
        golden.check("out_thresholds", PLOPReleased(floor=base).thresholds(histogram), tolerance=1e-6)

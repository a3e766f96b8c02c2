"""Golden files of SDR: `out_*` of the variant `released`, `ref_*` of `paper`, values and gradients."""

import torch

from contseg.losses.prototypes import (
    attraction,
    class_errors,
    class_means,
    class_sums,
    nearest,
    repulsion,
)
from contseg.losses.released_sdr import (
    misread_errors,
    misread_sums,
    released_attraction,
    released_repulsion,
    without_lowest,
)
from contseg.losses.sparsity import channel_entropy, class_maxima, sparsity
from contseg.methods.sdr import SDR, old_classes_in
from contseg.methods.sdr_released import SDRReleased
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.goldens import claims, context_of, gradients

VARIANTS = {"out": SDRReleased, "ref": SDR}


def context_in(golden):
    return context_of(golden.meta["old_classes_with_bg"], golden.meta["new_classes"])


def annotation(golden, old_classes: bool, background: bool) -> torch.Tensor:
    """New classes are annotated, and maybe others."""
    old, new = golden.meta["old_classes_with_bg"], golden.meta["new_classes"]
    annotated = torch.tensor([background] + [old_classes] * (old - 1) + [True] * new)
    return annotated.expand(len(golden.arrays["in_labels"]), -1)


def small_labels(golden, name: str = "in_labels") -> torch.Tensor:
    return nearest(golden.tensor(name), golden.arrays["in_features"].shape[2:])


@claims(r"sdr/running_prototypes_.*")
def check_running_prototypes(golden):
    features, labels = golden.tensor("in_features"), small_labels(golden)
    golden.check("in_labels_down", labels.unsqueeze(1))
    endings = [name.removeprefix("out_prototypes_") for name in golden.arrays if name.startswith("out_prototypes_")]
    assert endings
    for ending in endings:
        setting, step = ending.split("_step")
        complete = setting == "sequential" or (setting == "disjoint" and step == "0")  # no later class hides in background
        for kind, variant in VARIANTS.items():
            method = variant()
            method.state.update(prototypes=golden.tensor("in_prototypes"), counts=golden.tensor("in_counts"))
            method.remember(features, labels, annotation(golden, complete, complete), context_in(golden))
            golden.check(f"{kind}_prototypes_{ending}", method.state["prototypes"])
            golden.check(f"out_counts_{ending}", method.state["counts"])


@claims(r"sdr/contrastive_.*")
def check_contrast(golden):
    features, labels = golden.tensor("in_features", grad=True), small_labels(golden)
    prototypes = golden.tensor("in_prototypes")
    for kind, sums_of, errors_of, attraction_of, repulsion_of in (
        ("out", misread_sums, misread_errors, released_attraction, released_repulsion),
        ("ref", class_sums, class_errors, attraction, repulsion),
    ):
        sums, counts = sums_of(features, labels, len(prototypes))
        errors = errors_of(features, labels, prototypes)
        for ending, present in (("with_bg", counts > 0), ("no_bg", without_lowest(counts > 0))):
            pulled, pushed = attraction_of(errors, counts, present), repulsion_of(class_means(sums, counts), present)
            for name, value in (("attraction", pulled), ("repulsion", pushed)):
                golden.check(f"{kind}_{name}_{ending}", value)
                grad = "grad" if kind == "out" else "ref_grad"
                golden.check(f"{grad}_features_{name}_{ending}", *gradients(value, features))
    for kind, variant in VARIANTS.items():  # as the method weighs them
        meta = golden.meta
        method = variant(attraction=meta["weight_attraction"], repulsion=meta["weight_repulsion"])
        method.state.update(prototypes=prototypes, counts=torch.ones(len(prototypes), dtype=torch.int64))
        for name, value in method.contrast(features, labels, context_in(golden)).items():
            golden.check(f"{kind}_{name}_with_bg", value / meta[f"weight_{name}"])


@claims(r"sdr/prototype_matching_.*")
def check_prototype_matching(golden):
    features, prototypes = golden.tensor("in_features", grad=True), golden.tensor("in_prototypes")
    old = golden.meta["old_classes_with_bg"]
    said = torch.nn.functional.one_hot(golden.tensor("in_old_argmax").long(), old).movedim(3, 1).double()
    context = context_in(golden)
    for mode in ("pseudo", "sequential"):
        full = golden.tensor("in_labels" if mode == "pseudo" else "in_labels_sequential")
        batch = Batch(torch.empty(0), full, (), annotation(golden, mode == "sequential", mode == "sequential"))
        labels = nearest(full, features.shape[2:])
        known = old_classes_in(batch, labels, SegmenterOutput(said), context)
        golden.check(f"out_pseudo_{mode}_classmean", known.where(known != 255, 0).unsqueeze(1))
        for kind, variant in VARIANTS.items():
            method = variant()
            method.state.update(prototypes=prototypes, counts=torch.ones(len(prototypes), dtype=torch.int64))
            loss = method.match(features, known, context)
            golden.check(f"{kind}_{mode}_classmean", loss)
            grad = "grad" if kind == "out" else "ref_grad"
            golden.check(f"{grad}_features_{mode}_classmean", *gradients(loss, features))
        if mode == "pseudo":
            golden.check("out_pseudo_pseudo_per_feature", known.where(known != 255, 0).unsqueeze(1))
            counts = class_sums(features, known, len(prototypes))[1]
            loss = (misread_errors(features, known, prototypes, "pixels first") / counts.clamp(min=1)).sum()
            golden.check("out_pseudo_per_feature", loss)
            golden.check("grad_features_pseudo_per_feature", *gradients(loss, features))


@claims(r"sdr/sparsification_.*")
def check_sparsity(golden):
    features, labels, epsilon = golden.tensor("in_features", grad=True), small_labels(golden), golden.meta["eps"]
    positive = golden.tensor("in_features_l1_entropy", grad=True)
    maxima = class_maxima(features, labels)[labels].unsqueeze(1)
    found = {
        "default": (sparsity(features, maxima, epsilon=epsilon), features),
        "perpixel_squared": (sparsity(features, features.amax(dim=1, keepdim=True), torch.square, epsilon), features),
        "overall_power3": (sparsity(features, features.amax(), lambda g: g**3, epsilon), features),
        "l1_entropy": (channel_entropy(positive), positive),
    }
    assert set(found) == set(golden.meta["settings"])
    for name, (loss, own) in found.items():
        golden.check(f"out_{name}", loss)
        golden.check(f"grad_features_{name}", *gradients(loss, own))
    golden.check("out_default", SDRReleased().sparse(features, labels, context_of(2, 1)))
    if (features / maxima).sum(dim=1).min() > 0:  # nothing that `paper` guards against
        golden.check("out_default", SDR().sparse(features, labels, context_of(2, 1)))


@claims(r"sdr/sdr_step")
def check_step(golden):
    old, new = golden.meta["classes"]
    weights = golden.meta["weights"]
    method = SDRReleased(
        distillation=float(weights["kd"]),
        matching=weights["prototypes_matching"],
        attraction=weights["attraction"],
        repulsion=weights["repulsion"],
        sparsity=weights["sparsification"],
    )
    method.state.update(prototypes=golden.tensor("in_prototypes"), counts=golden.tensor("in_counts"))
    logits, features = golden.tensor("in_new_logits", grad=True), golden.tensor("in_features", grad=True)
    labels = golden.tensor("in_labels")
    annotated = torch.tensor([False] * old + [True] * new).expand(len(labels), -1)
    batch = Batch(torch.empty(0), labels, (), annotated)
    student, teacher = SegmenterOutput(logits, {"stage4": features}), SegmenterOutput(golden.tensor("in_old_logits"))
    context = context_of(old, new)
    terms = method.losses(method.relabel(batch, teacher, context), student, teacher, context)
    names = {"cross_entropy": "ce", "distillation": "kd", "sparsity": "sparsification"}
    for name, value in terms.items():
        golden.check(f"out_{names.get(name, name)}", value)
    assert len(terms) == 6
    total = torch.stack(list(terms.values())).sum()
    golden.check("out_total", total)
    golden.check("out_prototypes", method.state["prototypes"])
    golden.check("out_counts", method.state["counts"])
    for name, gradient in zip(("grad_new_logits", "grad_features"), gradients(total, logits, features), strict=True):
        golden.check(name, gradient)

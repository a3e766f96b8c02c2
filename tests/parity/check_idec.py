"""Golden files of IDEC, and of SSUL below it."""

import numpy as np
import torch

from contseg.engine.options import TrainingOptions
from contseg.engine.schedule import learning_rate
from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.metrics import class_accuracy, class_iou, frequency_weighted_iou, overall_accuracy
from contseg.losses.contrast import fold_unknown, released_region_contrast, released_regions, triplet
from contseg.losses.cross_entropy import cross_entropy, focal_cross_entropy, sigmoid_cross_entropy
from contseg.losses.distillation import dense_distillation, distillation
from contseg.methods.pseudo_labels import fill_in
from contseg.scenarios.batch import Batch
from tests.parity.goldens import claims, gradients

VALUE, GRADIENT = 1e-5, 1e-5  # of float32 files


@claims(r"idec/bce_ignore.*")
def check_sigmoid_cross_entropy(golden):
    logits, labels = golden.tensor("in_logits", grad=True), golden.tensor("in_labels")
    loss, valid = sigmoid_cross_entropy(logits, labels), labels != golden.meta["ignore_index"]
    golden.check("out_none", loss, VALUE)
    golden.check("out_sum", loss.sum(), VALUE)
    mean, weighted = loss.sum() / valid.sum(), (loss * golden.tensor("in_weight")).sum() / valid.sum()
    golden.check("out_mean", mean, VALUE)
    golden.check("out_mean_weighted", weighted, VALUE)
    golden.check("grad_logits_mean", *gradients(mean, logits), GRADIENT)
    golden.check("grad_logits_mean_weighted", *gradients(weighted, logits), GRADIENT)


@claims(r"idec/focal.*")
def check_focal(golden):
    logits, labels = golden.tensor("in_logits", grad=True), golden.tensor("in_labels")
    for name, key in (("default", "default"), ("gamma2", "second")):
        loss = focal_cross_entropy(logits, labels, **golden.meta[key])
        golden.check(f"out_{name}", loss.mean(), VALUE)
        golden.check(f"grad_{name}", *gradients(loss.mean(), logits), GRADIENT)
    golden.check("out_gamma2_sum", loss.sum(), VALUE)


@claims(r"idec/kd_logits.*")
def check_distillation(golden):
    student, teacher = golden.tensor("in_student", grad=True), golden.tensor("in_teacher")
    loss = distillation(student, teacher, golden.meta["alpha"])
    golden.check("out_none", loss, VALUE)
    golden.check("out_sum", loss.sum(), VALUE)
    plain = distillation(student, teacher, 1.0)
    masked = loss * golden.tensor("in_mask")
    for end, value in (("", loss.mean()), ("_masked", masked.mean()), ("_alpha1", plain.mean())):
        golden.check(f"out{end or '_mean'}" if end != "_masked" else "out_mean_masked", value, VALUE)
        golden.check(f"grad_student{end}", *gradients(value, student), GRADIENT)


def raw_divergence(student, teacher):
    """T log T - T S per element: the default criterion of the released code, on features that are no distributions."""
    return torch.xlogy(teacher, teacher) - teacher * student


@claims(r"idec/dada.*")
def check_dense_distillation(golden):
    meta, layers = golden.meta, list(golden.meta["layer_weights"])
    weights = [meta["layer_weights"][layer] for layer in layers]
    teachers = [golden.tensor(f"in_teacher_feature_{layer}") for layer in layers]
    for name, base in meta["lamb"].items():
        students = [golden.tensor(f"in_student_feature_{layer}", grad=True) for layer in layers]
        criterion = raw_divergence if name == "kldiv" else lambda s, t: distillation(s, t, meta["alpha"])
        decay = base ** (meta["epoch"] / meta["epochs"])
        total = dense_distillation(students, teachers, weights, decay, criterion=criterion)
        golden.check(f"out_{name}_total", total, VALUE)
        for layer, gradient in zip(layers, gradients(total, *students), strict=True):
            if f"grad_{name}_{layer}" in golden.arrays:
                golden.check(f"grad_{name}_{layer}", gradient, GRADIENT)
        for place, layer in enumerate(layers):
            only = [weight * (place == other) for other, weight in enumerate(weights)]
            part = dense_distillation(students, teachers, only, decay, criterion=criterion)
            golden.check(f"out_{name}_{layer}", part, VALUE)


@claims(r"idec/pseudo_labels.*")
def check_pseudo_labels(golden):
    teacher, student = golden.tensor("in_teacher_logits"), golden.tensor("in_student_logits", grad=True)
    labels = golden.tensor("in_labels")
    batch = Batch(torch.empty(0), labels, (), torch.zeros(len(labels), student.shape[1], dtype=torch.bool))
    for name in golden.meta["variants"]:
        scores = teacher.softmax(dim=1) if name.startswith("softmax") else teacher.sigmoid()
        score, said = scores.max(dim=1)
        golden.check(f"out_score_{name}", score, 1e-6)
        golden.check(f"out_pred_{name}", said)
        foreground = 1 if name.endswith("plain") else 2
        filled = fill_in(batch, said, score >= golden.meta["threshold"], foreground).labels
        golden.check(f"out_labels_{name}", filled)
        loss = (cross_entropy if name.startswith("softmax") else sigmoid_cross_entropy)(student, filled)
        mean = loss.sum() / (filled != golden.meta["ignore_index"]).sum()
        golden.check(f"out_loss_{name}", mean, VALUE)
        golden.check(f"grad_student_{name}", *gradients(mean, student), GRADIENT)


@claims(r"idec/arcl.*")
def check_released_region_contrast(golden):
    student = golden.tensor("in_student_feature", grad=True)
    logits = {name: fold_unknown(golden.tensor(f"in_{name}_logits")) for name in ("student", "teacher")}
    for name, folded in logits.items():
        golden.check(f"out_{name}_logits_after", torch.cat([golden.tensor(f"in_{name}_logits")[:, :1], folded], dim=1), 1e-6)
    said = logits["teacher"].argmax(dim=1)
    drawn = golden.meta["drawn_classes"]
    features = student, golden.tensor("in_teacher_feature")
    regions = released_regions(*features, said, drawn)
    for name, vectors in zip(("anchor", "positive", "negative"), zip(*regions, strict=True), strict=True):
        golden.check(f"out_{name}", torch.stack(vectors), VALUE)
    used = golden.arrays["out_terms"][np.isfinite(golden.arrays["out_terms"])]
    terms = [float(triplet(*(vector[None] for vector in each)).detach()) for each in regions]
    np.testing.assert_allclose(terms, used, rtol=VALUE)
    loss = released_region_contrast(*features, said, drawn)
    golden.check("out_loss", loss, VALUE)
    golden.check("grad_student_feature", *gradients(loss, student), GRADIENT)


@claims(r"idec/metrics.*")
def check_metrics(golden):
    """Its code counts a class that is absent as 0, where ours leaves it out."""
    meta = golden.meta
    counts = confusion_matrix(golden.tensor("in_labels"), golden.tensor("in_preds"), meta["n_classes"]).numpy()
    golden.check("out_confusion", counts.astype(float))
    iou, accuracy = (np.nan_to_num(found(counts, meta["eps"])) for found in (class_iou, class_accuracy))
    golden.check("out_class_iou", iou)
    golden.check("out_class_acc", accuracy)
    golden.check("out_mean_iou", iou.mean())
    golden.check("out_mean_acc", accuracy.mean())
    golden.check("out_old_miou", iou[: meta["first_step_classes"]].mean())
    golden.check("out_new_miou", iou[meta["first_step_classes"] :].mean())
    golden.check("out_overall_acc", np.array(overall_accuracy(counts)))
    golden.check("out_freqw_acc", np.array(frequency_weighted_iou(counts, meta["eps"])))


@claims(r"idec/schedules.*")
def check_schedules(golden):
    meta, total = golden.meta, golden.meta["total_iterations"]
    base = meta["base_lrs"][0]
    poly = TrainingOptions(lr=base, power=meta["power"], lr_min=meta["min_lr"])
    warm = TrainingOptions(
        lr=base,
        power=meta["power"],
        schedule="warm-poly",
        warmup_updates=meta["warmup_iters"],
        warmup_ratio=meta["warmup_factor"],
    )
    for name, options in (("poly", poly), ("warm_poly", warm)):
        rates = [
            [learning_rate(options, 0, update, total, group / base) for group in meta["base_lrs"]] for update in range(total)
        ]
        golden.check(f"out_lr_{name}", np.array(rates))

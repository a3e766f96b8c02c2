"""Golden files of LAG."""

import torch

from contseg.losses.confidence import released_ranking, top_two
from contseg.losses.contrast import decoupled_contrast
from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.losses.decoupling import released_consistency
from contseg.losses.distillation import dense_distillation, distillation
from contseg.methods.lag_released import OWN
from contseg.methods.pseudo_labels import fill_in
from contseg.scenarios.batch import Batch
from tests.parity.goldens import claims, gradients

VALUE, GRADIENT = 1e-5, 1e-5  # of float32 files


@claims(r"lag/dcl")
def check_decoupled_contrast(golden):
    meta = golden.meta
    for name, scale, count in (("small", 1.0, None), ("large", meta["scale"]["large"], None), ("batch1", 1.0, 1)):
        student = (golden.tensor("in_student")[:count] * scale).requires_grad_()
        teacher = golden.tensor("in_teacher")[:count] * scale
        loss = decoupled_contrast(student.flatten(1), teacher.flatten(1), meta["temperature"], OWN)
        golden.check(f"out_{name}", loss, VALUE)
        golden.check(f"grad_student_{name}", *gradients(loss, student), GRADIENT)


@claims(r"lag/dclw.*")
def check_weighted_decoupled_contrast(golden):
    meta, student = golden.meta, golden.tensor("in_student", grad=True)
    rows = student.flatten(1), golden.tensor("in_teacher").flatten(1)
    loss = decoupled_contrast(*rows, meta["temperature"], OWN, sigma=meta["sigma"])
    golden.check("out_default", loss, VALUE)
    golden.check("grad_student", *gradients(loss, student), GRADIENT)


@claims(r"lag/channel_kd.*")
def check_released_consistency(golden):
    student = golden.tensor("in_student", grad=True)
    each = released_consistency(student, golden.tensor("in_teacher"))
    golden.check("out_per_channel", each, VALUE)
    golden.check("out_loss", each.mean(), VALUE)
    golden.check("grad_student", *gradients(each.mean(), student), GRADIENT)


@claims(r"lag/invariance_total.*")
def check_invariance(golden):
    meta, layers = golden.meta, list(golden.meta["layer_weights"])
    weights = [meta["layer_weights"][layer] for layer in layers]
    students = [golden.tensor(f"in_student_feature_{layer}", grad=True) for layer in layers]
    teachers = [golden.tensor(f"in_teacher_feature_{layer}") for layer in layers]
    decay = meta["lamb"] ** (meta["epoch"] / meta["epochs"])

    def dense(weights):
        return dense_distillation(
            students, teachers, weights, decay, True, lambda student, teacher: distillation(student, teacher, meta["alpha"])
        )

    for place, layer in enumerate(layers):
        golden.check(f"out_{layer}", dense([weight * (place == other) for other, weight in enumerate(weights)]), VALUE)
    last = students[-1].flatten(1), teachers[-1].flatten(1)
    contrast = decoupled_contrast(*last, meta["dcl_temperature"], OWN)
    consistency = released_consistency(students[-1], teachers[-1]).mean()
    golden.check("out_dec", contrast, VALUE)
    golden.check("out_channel", consistency, VALUE)
    total = dense(weights) + contrast + consistency
    golden.check("out_total", total, VALUE)
    for layer, gradient in zip(layers, gradients(total, *students), strict=True):
        golden.check(f"grad_feature_{layer}", gradient, GRADIENT)


@claims(r"lag/uncertainty_pseudo_labels.*")
def check_pseudo_labels(golden):
    labels, threshold = golden.tensor("in_labels"), golden.meta["threshold"]
    said, score, margin = top_two(golden.tensor("in_teacher_logits").sigmoid())
    ranking = released_ranking(said, margin)
    for name, value in (("pred", said), ("score", score), ("margin", margin), ("ranking", ranking)):
        golden.check(f"out_{name}", value, 1e-6)
    batch = Batch(torch.empty(0), labels, (), torch.zeros(len(labels), sum(golden.meta["head_widths"]), dtype=torch.bool))
    sure = score >= threshold
    for name, rule in (("margin", ranking > threshold), ("margin_2023", ranking > 0.5), ("plain", sure)):
        golden.check(f"out_labels_{name}", fill_in(batch, said, sure & rule, 2).labels)


@claims(r"lag/shared_losses.*")
def check_shared_losses(golden):
    logits, student = golden.tensor("in_logits", grad=True), golden.tensor("in_student", grad=True)
    labels = golden.tensor("in_labels")
    loss = sigmoid_cross_entropy(logits, labels).sum() / (labels != 255).sum()
    golden.check("out_bce", loss, VALUE)
    golden.check("grad_bce", *gradients(loss, logits), GRADIENT)
    kept = distillation(student, golden.tensor("in_teacher"), 2.0).mean()
    golden.check("out_kd", kept, VALUE)
    golden.check("grad_kd", *gradients(kept, student), GRADIENT)

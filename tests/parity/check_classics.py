"""Golden files of the methods that MiB's code base has beside it: LwF, LwF-MC, ILT, EWC, PI, RW."""

import torch
from torch import nn

from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.losses.distillation import distillation
from contseg.losses.regularisers import penalty
from contseg.losses.soft_targets import sigmoid_distillation
from contseg.methods.ewc import EWC
from contseg.methods.ilt import ILT
from contseg.methods.lwf import LwF
from contseg.methods.lwf_mc import LwFMC
from contseg.methods.pi import PI
from contseg.methods.rw import RW
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.goldens import claims, context_of, gradients

MOVE = 0.1
"""Of the scripted updates of the regularisers: each parameter moves by -0.1 times its gradient."""


def batch_of(labels: torch.Tensor, classes: int) -> Batch:
    """A batch in which only new classes were annotated."""
    return Batch(torch.empty(0), labels, (), torch.zeros(len(labels), classes, dtype=torch.bool))


@claims(r"mib/lwf_kd.*")
def check_lwf(golden):
    logits, old, mask = golden.tensor("in_logits", grad=True), golden.tensor("in_old_logits"), golden.tensor("in_mask")
    meta, ends = golden.meta, [name.removeprefix("out_map_") for name in golden.arrays if name.startswith("out_map_")]
    batch = batch_of(torch.zeros(mask.shape, dtype=torch.int64), logits.shape[1])
    for alpha, end in zip(meta["alphas"], ends, strict=True):
        loss = distillation(logits, old, alpha)
        golden.check(f"out_map_{end}", loss)
        method = LwF(distillation=meta["weight_used"], alpha=alpha)
        context = context_of(meta["old_classes_with_bg"], meta["new_classes"])
        terms = method.losses(batch, SegmenterOutput(logits), SegmenterOutput(old), context)
        for kind, mean in (("mean", terms["distillation"] / meta["weight_used"]), ("mean_masked", (loss * mask).mean())):
            golden.check(f"out_{kind}_{end}", mean)
            golden.check(f"grad_logits_{kind}_{end}", *gradients(mean, logits))


@claims(r"mib/lwf_mc.*")
def check_lwf_mc(golden):
    meta, tolerance = golden.meta, 1e-6  # float32
    logits, old = golden.tensor("in_logits", grad=True), golden.tensor("in_old_logits")
    batch = batch_of(golden.tensor("in_labels"), logits.shape[1])
    context = context_of(meta["old_classes_with_bg"], meta["new_classes"])
    golden.check("out_bce_map", sigmoid_cross_entropy(logits, batch.labels), tolerance)
    golden.check("out_combined", sigmoid_distillation(logits, old).mean(), tolerance)

    def terms(targets):
        method = LwFMC(distillation=meta["importance"], targets=targets)
        return method.losses(batch, SegmenterOutput(logits), SegmenterOutput(old), context)

    combined = terms("combined")
    golden.check("out_bce_mean", combined["cross_entropy"], tolerance)
    golden.check("out_combined_weighted", combined["distillation"], tolerance)
    golden.check("grad_logits_total", *gradients(combined["cross_entropy"] + combined["distillation"], logits), tolerance)
    for targets, end in (("disjoint", "disjoint"), ("disjoint-background", "disjoint_gt_background")):
        (loss,) = terms(targets).values()
        golden.check(f"out_{end}", loss, tolerance)
        golden.check(f"grad_logits_{end}", *gradients(loss, logits), tolerance)


@claims(r"ilt/ilt_total.*")
def check_ilt(golden):
    meta = golden.meta
    logits, features = golden.tensor("in_logits", grad=True), golden.tensor("in_features", grad=True)
    student = SegmenterOutput(logits, {"stage4": features})
    teacher = SegmenterOutput(golden.tensor("in_old_logits"), {"stage4": golden.tensor("in_old_features")})
    context = context_of(meta["old_classes_with_bg"], meta["new_classes"])
    method = ILT(distillation=meta["loss_kd"], encoder=meta["loss_de"])
    terms = method.losses(batch_of(golden.tensor("in_labels"), logits.shape[1]), student, teacher, context)
    golden.check("out_ce", terms["cross_entropy"])
    golden.check("out_kd", terms["distillation"] / meta["loss_kd"])
    golden.check("out_mse", terms["encoder"] / meta["loss_de"])
    total = sum(terms.values())
    golden.check("out_total", total)
    for name, gradient in zip(("grad_logits", "grad_features"), gradients(total, logits, features), strict=True):
        golden.check(name, gradient)


@claims(r"ilt/encoder_distillation.*")
def check_encoder_distillation(golden):
    features, old = golden.tensor("in_features", grad=True), golden.tensor("in_old_features")
    context = context_of(golden.meta["old_classes_with_bg"])
    batch = batch_of(golden.tensor("in_labels"), 0)
    for distance, kind in (("squared", "mse"), ("cosine", "cosine")):
        for only_old, end in ((False, kind), (True, f"{kind}_masked_old")):
            loss = ILT(distance=distance, only_old=only_old).encoder_distance(features, old, batch, context)
            golden.check(f"out_{end}", loss)
            golden.check(f"grad_features_{end}", *gradients(loss, features))


@claims(r"mib/regularizer_ewc.*")
def check_ewc(golden):
    check_regulariser(golden, EWC(importance=golden.meta["importance_voc"], alpha=golden.meta["alpha"]))


@claims(r"mib/regularizer_pi.*")
def check_pi(golden):
    check_regulariser(golden, PI(importance=golden.meta["importance_voc"]))


@claims(r"mib/regularizer_rw.*")
def check_rw(golden):
    meta = golden.meta
    method = RW(importance=meta["importance_voc"], alpha=meta["alpha"], interval=meta["iterations_rw"])
    check_regulariser(golden, method)


def penalty_of(method, student):
    """sum w (p - p°)^2 in the middle of a step."""
    pulled = method.pulled(dict(student.named_parameters()))
    return penalty(list(pulled.values()), method.recall("anchor", pulled), method.recall("strength", pulled))


def check_regulariser(golden, method):
    """A step of a toy model by the method's own calls: penalty before and after, its gradient, what is remembered."""
    assert golden.meta["normalize"], "importances are always stretched"
    start = named(golden, "in_new_")
    student = model_of(start)
    parameters = dict(student.named_parameters())
    for kind in ("fisher", "score"):
        method.state.update({f"{kind}.{name}": value for name, value in named(golden, f"in_{kind}_").items()})
    context = context_of(1, student=student)
    move_to(parameters, start | named(golden, "in_old_"))
    method.before_step(context)
    move_to(parameters, start)

    penalty = penalty_of(method, student)
    golden.check("out_penalty_start", penalty)
    pulls = torch.autograd.grad(penalty, list(parameters.values()), allow_unused=True, materialize_grads=True)
    for name, pull in zip(parameters, pulls, strict=True):
        golden.check(f"grad_start_{name}", pull)

    for update in range(golden.meta["updates"]):
        given = named(golden, f"in_grad{update}_")
        for name, parameter in parameters.items():
            parameter.grad = given[name].clone()
        method.after_backward(context)
        for name, parameter in parameters.items():
            if update == 0:
                golden.check(f"grad_start_{name}", (parameter.grad - given[name]) / method.importance)
            parameter.data -= MOVE * given[name]
        method.after_update(context)

    golden.check("out_penalty_end", penalty_of(method, student))
    for name in named(golden, "out_delta_"):
        golden.check(f"out_delta_{name}", method.state[f"path.{name}"])
    method.after_step(context)
    for kind in ("fisher", "score"):
        expected = named(golden, f"out_{kind}_")
        assert {key for key in method.state if key.startswith(f"{kind}.")} == {f"{kind}.{name}" for name in expected}
        for name in expected:
            golden.check(f"out_{kind}_{name}", method.state[f"{kind}.{name}"])


def named(golden, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): golden.tensor(name) for name in golden.arrays if name.startswith(prefix)}


def model_of(values: dict[str, torch.Tensor]) -> nn.Module:
    """A module whose parameters have these names, dots and all."""
    model = nn.Module()
    for name, value in values.items():
        *path, last = name.split(".")
        place = model
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_parameter(last, nn.Parameter(value.clone()))
    return model


@torch.no_grad()
def move_to(parameters: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])

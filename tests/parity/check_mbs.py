"""Golden files of MBS."""

import json
import math

import numpy as np
import torch

from contseg.evaluation.metrics import class_iou
from contseg.interop.mbs import convert_mbs
from contseg.losses.distillation import distillation
from contseg.losses.tokens import guided_distillation, patch_weights, token_overlap
from contseg.methods.mbs_released import MBSReleased
from contseg.models.backbones.vision_transformer import resized_positions
from contseg.models.class_tokens import mask_norm
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.fill import fill_image, fill_state
from tests.parity.goldens import claims, context_of, gradients, manifest_of, network_state

TAPS = ("patches", "classes", "tokens", "patch_logits")


def as_sequence(map_BCHW):
    return map_BCHW.flatten(2).transpose(1, 2)


@claims(r"mbs/tiny_network")
def check_tiny_network(golden):
    state = fill_state(json.loads(manifest_of(golden.path).read_text()))
    meta = golden.meta
    segmenter, widths = convert_mbs({name: torch.from_numpy(np.asarray(value)).double() for name, value in state.items()},
                                    heads=meta["heads"])  # fmt: skip
    segmenter.double()
    assert widths == [sum(meta["widths"][:2]), *meta["widths"][2:]]
    for number, (shape, seed) in enumerate(meta["images"]):
        image = torch.from_numpy(fill_image(tuple(shape), seed)).double().requires_grad_()
        output = segmenter(image, taps=TAPS)
        golden.check(f"out_low{number}", output.features["patch_logits"])
        golden.check(f"out_logits{number}_every4", output.logits_at((shape[2], shape[3]))[:, :, ::4, ::4])
        golden.check(f"out_patches{number}", as_sequence(output.features["patches"]))
        golden.check(f"out_classes{number}", output.features["classes"])
        if f"in_weight{number}" not in golden.arrays:
            continue
        total = (output.features["patch_logits"] * golden.tensor(f"in_weight{number}")).sum()
        newest = segmenter.classifier.steps[-1]
        image_gradient, tokens, gain = gradients(total, image, newest.tokens, newest.gain)
        golden.check(f"grad_image{number}", image_gradient[:, :, ::4, ::4])
        golden.check(f"grad_new_tokens{number}", tokens[None])
        golden.check(f"grad_new_norm_weight{number}", gain)


@claims(r"mbs/vit_b16_.*")
def check_whole_network(golden):
    state = {name: value.float() for name, value in network_state(golden).items()}
    assert len(state) == golden.meta["entries"]
    assert sum(value.numel() for value in state.values()) == golden.meta["values"]
    segmenter, widths = convert_mbs(state)
    assert widths == [sum(golden.meta["widths"][:2]), *golden.meta["widths"][2:]]
    shape, seed = golden.meta["image"]
    with torch.no_grad():
        output = segmenter(torch.from_numpy(fill_image(tuple(shape), seed)), taps=TAPS)
    features = output.features | {"patches": as_sequence(output.features["patches"])}
    golden.check_close("out_logits", features["patch_logits"], atol=1e-3)
    for name in ("patches", "classes", "tokens"):
        golden.check(f"{name}_shape", np.array(features[name].shape))
        golden.check_close(f"{name}_mean", features[name].mean(dim=-1), atol=1e-3)
        golden.check_close(f"{name}_sample", features[name][:, :8, :32], atol=1e-3)


@claims(r"mbs/mask_norm")
def check_mask_norm(golden):
    scores = golden.tensor("in_x", grad=True)
    found = mask_norm(scores, golden.tensor("in_scale"), golden.tensor("in_shift"))
    golden.check("out_y", found)
    golden.check("grad_x", *gradients((found * golden.tensor("in_weight")).sum(), scores))


@claims(r"mbs/positions")
def check_positions(golden):
    positions = golden.tensor("in_positions")
    for name in (name for name in golden.arrays if name.startswith("out_")):
        height, width = map(int, name.removeprefix("out_").split("x"))
        golden.check(name, resized_positions(positions, (height, width)))


def batch_of(labels, meta):
    annotated = torch.zeros(len(labels), meta["n_old"] + meta["n_new"], dtype=torch.bool)
    annotated[:, meta["n_old"] :] = True
    return Batch(torch.empty(0), labels, tuple(map(str, range(len(labels)))), annotated)


@claims(r"mbs/labels")
def check_labels(golden):
    batch = batch_of(golden.tensor("in_labels"), golden.meta)
    method, context = MBSReleased(threshold=golden.meta["threshold"]), context_of(golden.meta["n_old"], golden.meta["n_new"])
    relabelled = method.relabel(batch, SegmenterOutput(golden.tensor("in_teacher")), context)
    golden.check("out_labels", relabelled.labels)
    low = golden.tensor("in_teacher_low")
    near = torch.nn.functional.interpolate(relabelled.labels[:, None].double(), low.shape[2:], mode="nearest")[:, 0].long()
    golden.check("out_labels_grid", near)
    golden.check("out_patch_weights", patch_weights(relabelled.labels, low).flatten(1))


@claims(r"mbs/output_distillation")
def check_output_distillation(golden):
    logits, said = golden.tensor("in_logits", grad=True), golden.tensor("in_teacher")
    loss = guided_distillation(logits, said, golden.tensor("in_labels")).mean()
    golden.check("out_loss", loss)
    golden.check("grad_logits", *gradients(loss, logits))
    plain = distillation(logits, said).mean()
    golden.check("out_plain_loss", plain)
    golden.check("grad_plain_logits", *gradients(plain, logits))


@claims(r"mbs/feature_distillation")
def check_feature_distillation(golden):
    """The method itself, with labels and teacher's logits that give the recorded weights."""
    meta = golden.meta
    weights = golden.tensor("in_patch_weights")
    side = round(weights.shape[1] ** 0.5)

    def as_map(name, grad=False):
        return golden.tensor(name).transpose(1, 2).unflatten(2, (side, side)).requires_grad_(grad)

    weights = weights.view(-1, side, side)
    labels = torch.where(weights == 1, 1, torch.where(weights == 0, meta["n_old"], 0))
    share = weights.clamp(1e-300, 1 - 1e-16)
    low = torch.full((len(weights), meta["n_old"], side, side), -math.inf, dtype=torch.float64)
    low[:, 0], low[:, 1] = share.log(), (1 - share).log()
    student = {"patches": as_map("in_patches", grad=True), "classes": golden.tensor("in_classes", grad=True)}
    teacher = {"patches": as_map("in_teacher_patches"), "classes": golden.tensor("in_teacher_classes"), "patch_logits": low}
    method = MBSReleased(distillation=0.0, orthogonality=0.0)
    logits = torch.zeros(len(weights), meta["n_old"] + meta["n_new"], side, side, dtype=torch.float64)
    terms = method.losses(
        batch_of(labels, meta),
        SegmenterOutput(logits, student),
        SegmenterOutput(low, teacher),
        context_of(meta["n_old"], meta["n_new"]),
    )
    for name in ("patches", "classes"):
        golden.check(f"out_{name}", terms[name])
        (gradient,) = gradients(terms[name], student[name])
        golden.check(f"grad_{name}", as_sequence(gradient) if name == "patches" else gradient)


@claims(r"mbs/orthogonality")
def check_orthogonality(golden):
    old, new = golden.meta["n_old"], golden.meta["n_new"]
    for suffix in ("", "_at_start"):
        tokens = golden.tensor(f"in_tokens{suffix}", grad=True)
        loss = new / (old + new) * MBSReleased().overlap(token_overlap(tokens[0], old))
        golden.check(f"out_loss{suffix}", loss)
        golden.check(f"grad_tokens{suffix}", *gradients(loss, tokens))


@claims(r"mbs/metrics")
def check_metrics(golden):
    """The released code counts absent classes as 0, and leaves every class with 0 out of the mean over all."""
    first_new = golden.meta["first_new"]
    iou = np.nan_to_num(class_iou(golden.arrays["in_confusion"], epsilon=1e-6))
    golden.check("out_iou", iou)
    golden.check("out_old_released", iou[1:first_new].mean())
    golden.check("out_new_released", iou[first_new:].mean())
    golden.check("out_all_released", iou[iou > 0].mean())
    golden.check("ref_all_every_class", iou.mean())

"""Golden files of MBS."""

import json

import numpy as np
import torch

from contseg.interop.mbs import convert_mbs
from contseg.models.backbones.vision_transformer import resized_positions
from contseg.models.class_tokens import mask_norm
from tests.parity.fill import fill_image, fill_state
from tests.parity.goldens import claims, gradients, manifest_of, network_state

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

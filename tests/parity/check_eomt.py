"""Golden files of EoMT's network: predictions and gradients, windows, schedules, learning rates."""

import numpy as np
import torch

from contseg.engine.optimiser import make_optimiser
from contseg.engine.options import TrainingOptions
from contseg.engine.schedule import learning_rate
from contseg.evaluation.along import resized, size_along, windows
from contseg.evaluation.inference import InferenceOptions, infer, infer_in_bands
from contseg.interop.eomt import eomt_names
from contseg.interop.names import load_strictly
from contseg.models.eomt.annealing import mask_probability
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.mask_decision import semantic_bands
from contseg.models.options import NetworkOptions
from tests.parity.goldens import claims, network_image, network_state


class Drawn(EoMTSegmenter):
    """Uses the recorded draws."""

    def draw(self, block, like_BQ):
        return self.golden.tensor(f"in_uniform_{block}")


def network_of(golden) -> Drawn:
    """The network of a golden, in float64."""
    meta = golden.meta
    rotary = meta["family"] == "dinov3"
    sizes = {"embed_dim": meta["dim"], "depth": meta["depth"], "num_heads": meta["heads"]}
    options = NetworkOptions(
        backbone={
            "name": "dinov3_small" if rotary else "dinov2_reg_small",
            "patch": meta["patch"],
            "size": meta["img"],
            "options": sizes | ({"qkv_bias": True} if rotary else {}),
        },
        head={"name": "eomt", "queries": meta["queries"], "blocks": meta["l2"]},
    )
    state = {name: value for name, value in network_state(golden).items() if "periods" not in name}
    network = Drawn(options, [meta["classes"]])
    load_strictly(network, eomt_names(state))
    network.golden = golden
    return network.double()


MODES = {"masked": 1.0, "unmasked": 0.0, "mixed": 0.5, "nolayers": 0.0}


@claims(r"eomt/(vit_reg4|dinov3)_.*")
def check_network(golden):
    meta = golden.meta
    network, tolerance = network_of(golden), 1e-4 if meta["family"] == "dinov3" else 1e-9
    assert meta["probability"] == MODES["mixed"]
    network.head.probabilities = [MODES[meta["mode"]]] * meta["l2"]
    image = network_image(golden).double() * meta["image"]["scale"] + meta["image"]["shift"]
    pixels = (image - network.mean) / network.std
    network.train(meta["mode"] != "nolayers")
    output = network(pixels)
    every = [*output.auxiliary, output]
    assert len(every) == (1 if meta["mode"] == "nolayers" else meta["l2"] + 1)
    for layer, one in enumerate(every):
        golden.check(f"out_class_logits_{layer}", one.masks.class_logits, tolerance)
        if f"out_mask_logits_{layer}" in golden.arrays:
            golden.check(f"out_mask_logits_{layer}", one.masks.mask_logits.float(), max(tolerance, 1e-6))
    size = tuple(image.shape[2:])
    scores = torch.zeros(len(image), meta["classes"], *size, dtype=torch.float64)
    with torch.no_grad():
        for place, rows, band in semantic_bands(output.masks, size):
            scores[place, :, rows] = band
    golden.check("out_semantic", scores[:, :, ::8, ::8], tolerance)
    golden.check("out_semantic_mean", scores.mean(dim=(0, 2, 3)), tolerance)
    assert (scores.argmax(dim=1).numpy() == golden.arrays["out_prediction"]).mean() > 0.999
    if "out_loss" not in golden.arrays:
        return
    loss = sum(one.masks.mask_logits.square().mean() + one.masks.class_logits.square().mean() for one in every)
    golden.check("out_loss", loss, tolerance)
    loss.backward()
    found = gradients_by_published_name(network, meta)
    names = [name.removeprefix("grad_norm.") for name in golden.arrays if name.startswith("grad_norm.")]
    assert names
    for name in names:
        golden.check(f"grad_norm.{name}", found[name].norm(), tolerance)
        golden.check(f"grad_sample.{name}", found[name].flatten()[:64], tolerance)


def gradients_by_published_name(network, meta) -> dict[str, torch.Tensor]:
    """The gradients of a network under the names of the checkpoint."""
    ours = {name: parameter.grad for name, parameter in network.named_parameters()}
    found = {name.removeprefix("head."): value for name, value in ours.items() if name.startswith("head.")}
    for last in ("weight", "bias"):
        found[f"class_head.{last}"] = torch.cat([ours[f"classifier.steps.0.{last}"], ours[f"classifier.none.{last}"]])
    for name, value in ours.items():
        if name.startswith("backbone.model."):
            found |= dict(published_trunk(f"encoder.backbone.{name.removeprefix('backbone.model.')}", value, meta))
    return found


def published_trunk(name: str, value: torch.Tensor, meta):
    """The published names of a tensor of the trunk: of timm's ViT its own, of DINOv3 those of transformers."""
    if meta["family"] != "dinov3":
        yield name, value
        return
    if name.endswith("attn.qkv.weight"):
        for part, one in zip("qkv", value.chunk(3), strict=True):
            yield name.replace("attn.qkv", f"attention.{part}_proj"), one
        return
    for old, new in (
        ("backbone.cls_token", "backbone.patch_embed.cls_token"),
        ("backbone.reg_token", "backbone.patch_embed.register_tokens"),
        ("patch_embed.proj.", "patch_embed.patch_embeddings."),
        ("attn.proj.", "attention.o_proj."),
        ("attn.q_bias", "attention.q_proj.bias"),
        ("attn.v_bias", "attention.v_proj.bias"),
        ("gamma_1", "layer_scale1.lambda1"),
        ("gamma_2", "layer_scale2.lambda1"),
        ("mlp.fc1.", "mlp.up_proj."),
        ("mlp.fc2.", "mlp.down_proj."),
    ):
        name = name.replace(old, new)
    yield name, value


@claims(r"eomt/learning_rates")
def check_learning_rates(golden):
    """As released, a `lr_mult` other than 1 multiplies nothing, and leaves the last blocks their full rate."""
    for case in golden.meta:
        options = NetworkOptions(
            backbone={
                "name": "dinov2_reg_small",
                "patch": 16,
                "size": 64,
                "options": {"embed_dim": 32, "depth": case["depth"], "num_heads": 4},
            },
            head={"name": "eomt", "queries": 10, "blocks": case["l2"]},
        )
        network = EoMTSegmenter(options, [6])
        training = TrainingOptions(
            optimiser="adamw",
            lr=case["lr"],
            layer_decay=case["llrd"],
            layer_decay_spares=0 if case["llrd_l2_enabled"] and case["lr_mult"] == 1 else case["l2"],
        )
        optimiser = make_optimiser([{"params": list(network.parameters()), "lr_factor": 1.0}], network, training)
        rate_of = {id(one): group["lr_factor"] * case["lr"] for group in optimiser.param_groups for one in group["params"]}
        ours = {name: rate_of[id(one)] for name, one in network.named_parameters()}
        for name, rate in case["rates"]:
            own = next(iter(eomt_names({name: torch.zeros(7, 1)})))
            assert abs(ours[own] - rate) < 1e-12, name


@claims(r"eomt/windows")
def check_windows(golden):
    crops, side = golden.tensor("in_crop_logits"), golden.meta["img_size"][0]
    options = InferenceOptions(mode="along", crop=side, windows=2)
    used = 0
    for number, about in enumerate(golden.meta["images"]):
        height, width = about["size"]
        assert list(size_along(height, width, side)) == about["resized"]
        found = windows(*about["resized"])
        assert [[part.start, part.stop] for part in (max(one, key=lambda side: side.stop) for one in found)][1:] == about[
            "windows"
        ][1:]
        mine = iter(crops[used : used + len(found)].split(1))

        def network(images, mine=mine):
            return torch.cat([next(mine) for _ in images])

        used += len(found)
        name, kept = f"in_image_{number}", {}
        if name in golden.arrays:
            image = golden.tensor(name)[None]
            kept["first"] = resized(image, side)[0, :, : found[0][0].stop, : found[0][1].stop]
            golden.check(f"out_crop_{number}", kept["first"])
        images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        golden.check(f"out_logits_{number}", infer(network, images, options)[0], 1e-6)
        again = iter(crops[used - len(found) : used].split(1))
        bands = infer_in_bands(lambda images, again=again: torch.cat([next(again) for _ in images]), images, options)
        golden.check(f"out_logits_{number}", torch.cat(list(bands), dim=2)[0], 1e-6)
    assert used == len(crops)


@claims(r"eomt/schedules")
def check_schedules(golden):
    meta = golden.meta
    first, second = meta["warmup"]
    options = TrainingOptions(
        lr=1.0, schedule="warm-twice", power=meta["power"], warmup_updates=first, backbone_warmup_updates=second
    )
    steps = range(meta["total"] + 1)
    rates = [
        [
            learning_rate(options, 0, step, meta["total"], rate, late=group < meta["backbone_groups"])
            for group, rate in enumerate(meta["base_lr"])
        ]
        for step in steps
    ]
    golden.check("out_lr", np.array(rates))
    spans = list(zip(meta["annealing_start"], meta["annealing_end"], strict=True))
    golden.check("out_mask_probability", np.array([[mask_probability(step, *span) for span in spans] for step in steps]))

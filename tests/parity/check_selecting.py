"""Golden file of SimCIS' decoder of queries."""

import math
import re

import torch

from contseg.methods.virtual_queries import virtual_weights
from contseg.models.queries.selecting import SelectingDecoder
from tests.parity.fill import fill_array
from tests.parity.goldens import claims, network_state

NAMES = [
    (r"transformer_self_attention_layers\.(\d+)\.self_attn\.", r"layers.\1.self_attention.attention."),
    (r"transformer_self_attention_layers\.(\d+)\.norm\.", r"layers.\1.self_attention.norm."),
    (r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.", r"layers.\1.cross_attention.attention."),
    (r"transformer_cross_attention_layers\.(\d+)\.norm\.", r"layers.\1.cross_attention.norm."),
    (r"transformer_ffn_layers\.(\d+)\.linear1\.", r"layers.\1.feed_forward.layers.0."),
    (r"transformer_ffn_layers\.(\d+)\.linear2\.", r"layers.\1.feed_forward.layers.2."),
    (r"transformer_ffn_layers\.(\d+)\.norm\.", r"layers.\1.feed_forward.norm."),
    (r"decoder_norm\.", "norm."),
    (r"level_embed\.", "level."),
    (r"enc_output\.", "candidate."),
    (r"encoder_norm\.", "candidate_norm."),
    (r"class_embed\.", "class_head."),
]
MLPS = {"mask_embed": "mask_head", "_bbox_embed": "box_head", "ref_point_head": "position", "query_scale": "scale"}


def ours(name: str) -> str:
    """Our name of a parameter."""
    if found := re.fullmatch(r"(\w+)\.layers\.(\d+)\.(weight|bias)", name):
        return f"{MLPS[found[1]]}.{2 * int(found[2])}.{found[3]}"
    for pattern, replacement in NAMES:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def normal(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers."""
    count = math.prod(shape)
    return torch.from_numpy(fill_array(name, (1, count), "float64")).view(shape) * math.sqrt(count / 2)


@claims(r"simcis/decoder")
def check_decoder(golden):
    meta = golden.meta
    batch, channels = meta["batch"], meta["hidden"]
    decoder = SelectingDecoder(channels, 150, meta["queries"], meta["heads"], meta["feedforward"], meta["layers"]).double()
    decoder.load_state_dict({ours(name): value for name, value in network_state(golden).items()})
    levels = [normal(f"simcis.level{i}", (batch, channels, *size)).requires_grad_() for i, size in enumerate(meta["levels"])]
    mask = normal("simcis.mask", (batch, channels, *meta["mask"])).requires_grad_()
    first = slice(12)

    def near(name: str, value: torch.Tensor) -> None:
        expected = golden.tensor(name).to(value)
        torch.testing.assert_close(value.detach(), expected, rtol=1e-3, atol=1e-4, msg=lambda text: f"{name}: {text}")

    def thin(masks: torch.Tensor) -> torch.Tensor:
        return masks[..., ::4, ::4]

    found = decoder(levels, mask, golden.tensor("in_virtual_queries"))
    selection, last = found.predictions[0], found.predictions[-1]
    golden.check("out_selected_positions", found.positions)
    near("out_selection_class_logits", selection.class_logits[..., first])
    near("out_selection_mask_logits", thin(selection.mask_logits))
    near("out_selection_boxes", selection.boxes)
    for layer, prediction in enumerate(found.predictions[1:-1]):
        near(f"out_class_logits_layer{layer}", prediction.class_logits[..., first])
    near("out_class_logits", last.class_logits[..., first])
    near("out_mask_logits", thin(last.mask_logits))
    near("out_boxes", last.boxes)

    old = golden.tensor("in_old_positions")
    memory = decoder.remember(levels, mask)
    there = decoder.decode(memory, old, reference_positions_BQ=found.positions)
    near("out_old_positions_selection_class_logits", there.predictions[0].class_logits[..., first])
    near("out_old_positions_class_logits", there.predictions[-1].class_logits[..., first])
    teacher = decoder([level * meta["teacher_feature_factor"] for level in levels], mask)
    assert torch.equal(teacher.positions, old)
    alone = decoder(levels, mask).predictions[-1]
    near("out_eval_class_logits", alone.class_logits[..., first])
    near("out_eval_mask_logits", thin(alone.mask_logits))

    loss = sum(one.square().mean() for one in (last.class_logits, last.mask_logits, selection.class_logits, last.boxes))
    near("out_loss", loss)
    loss.backward()
    parameters = {
        theirs: parameter for theirs in network_state(golden) for parameter in [decoder.get_parameter(ours(theirs))]
    }
    parameters |= {f"level{i}": level for i, level in enumerate(levels)} | {"mask": mask}
    for name in golden.arrays:
        if name.startswith("grad_norm."):
            gradient = parameters[name.removeprefix("grad_norm.")].grad
            near(name, torch.zeros(()) if gradient is None else gradient.norm())
    counts = golden.tensor("in_pseudo_counts")
    near("out_virtual_weights", virtual_weights(counts[: meta["tasks"][0]], meta["alpha"]))

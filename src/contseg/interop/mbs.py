"""Networks of MBS's code: convert their names to ours."""

import re
from typing import Any

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.interop.names import load_strictly, renamed
from contseg.models.backbones.options import VisionTransformerOptions
from contseg.models.heads.transformer_options import MaskTransformerOptions
from contseg.models.names import TRANSFORMERS
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

NAMES = (
    (r"^encoder\.", "backbone."),
    (r"^decoder\.proj_dec\.", "head.projection."),
    (r"^decoder\.proj_patch$", "classifier.patch_projection.weight"),
    (r"^decoder\.proj_classes$", "classifier.class_projection.weight"),
    (r"^decoder\.blocks\.", "classifier.blocks."),
    (r"^decoder\.decoder_norm\.", "classifier.norm."),
)
PARTS = ((r"cls_emb", "tokens"), (r"mask_norm\.weight", "gain"), (r"mask_norm\.bias", "shift"))
"""What the code keeps in one tensor per step, and our name for it."""
CLASSES = re.compile(r"^decoder\.(cls_emb|mask_norm\.weight|mask_norm\.bias)\.(\d+)$")


def convert_mbs(tensors: dict[str, Tensor], source: str = "mbs", heads: int | None = None) -> tuple[Segmenter, list[int]]:
    """Convert a network of MBS to a `Segmenter` (eval mode); also returns the outputs of each step.

    There, background and the classes of step 0 have tokens of their own, which are one step here. The classification layer
    of the encoder has no effect and is left out.

    Args:
        tensors: the state dict, without a `module.` prefix.
        heads: of the attention in encoder and decoder, which no tensor has; default: one per 64 channels.

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape.
    """
    tokens = {int(name.rpartition(".")[2]): value for name, value in tensors.items() if name.startswith("decoder.cls_emb.")}
    if not {0, 1} <= tokens.keys() or any(value.ndim != 3 for value in tokens.values()):
        raise ContsegError(f"weights: no class tokens with the tensor names of {source} (decoder.cls_emb.0 and 1)")
    first, *others = [tokens[place].shape[1] for place in sorted(tokens)]
    widths = [first + others[0], *others[1:]]
    found = {}
    for name, value in tensors.items():
        if not CLASSES.match(name) and not name.startswith("encoder.head."):
            found[renamed(name, NAMES)] = value.T if name in ("decoder.proj_patch", "decoder.proj_classes") else value
    return load_strictly(Segmenter(_options(tensors, heads), widths), found | _classes(tensors)), widths


def _options(tensors: dict[str, Tensor], heads: int | None) -> NetworkOptions:
    """The network with the sizes of the tensors."""
    width = tensors["decoder.cls_emb.0"].shape[2]
    class_token, positions = (tensors.get(f"encoder.{name}") for name in ("cls_token", "pos_embed"))
    channels = width if class_token is None else class_token.shape[-1]
    counts = [
        len({name.split(".")[2] for name in tensors if name.startswith(f"{part}.blocks.")})
        for part in ("encoder", "decoder")
    ]
    channels_of_name = {name: sizes["embed_dim"] for name, sizes in TRANSFORMERS.items()}
    name = next((name for name, own in channels_of_name.items() if own == channels), "vit_base")
    sizes = {"embed_dim": channels, "depth": max(counts[0], 1), "heads": heads or max(1, channels // 64)}
    backbone: dict[str, Any] = {key: value for key, value in sizes.items() if value != TRANSFORMERS[name][key]}
    if positions is not None and positions.ndim == 3:
        backbone["grid"] = max(1, round((positions.shape[1] - 1) ** 0.5))
    return NetworkOptions(
        backbone=VisionTransformerOptions.model_validate({"name": name} | backbone),
        head=MaskTransformerOptions(width=width, depth=max(counts[1], 1), heads=heads),
    )


def _classes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to single classes, under our names: entries 0 and 1 are one step, so later ones move down."""
    found: dict[str, Tensor] = {}
    for theirs, ours in PARTS:
        kept = {
            int(name.rpartition(".")[2]): value.flatten(0, -2) if ours == "tokens" else value
            for name, value in tensors.items()
            if re.fullmatch(rf"decoder\.{theirs}\.\d+", name)
        }
        if {0, 1} <= kept.keys():
            kept[1] = torch.cat([kept.pop(0), kept[1]])
        found |= {f"classifier.steps.{place - 1}.{ours}": value for place, value in kept.items()}
    return found

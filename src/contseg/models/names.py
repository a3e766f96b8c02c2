"""Names of backbones in recipes, and their models in timm. PyTorch is not imported, so that lists are fast."""

from typing import Any, Literal

Initialisation = Literal["torch", "he", "xavier"]
Freeze = Literal["none", "norm", "stage1", "stage2", "stage3", "stage4", "all"]

Decision = Literal["softmax", "sigmoid"]

Background = Literal["learned", "constant", "auxiliary", "residual"]
"""How a network decides for background, see `NetworkOptions`."""

STAGES = ("stage1", "stage2", "stage3", "stage4")
"""Features of backbones that are divided into stages."""

RESIDUAL_TAPS = ("branches", "raw_logits")
"""Features that only a network with `background: residual` has, see `contseg.models.residual`."""

ASPP_TAPS = ("aspp1", "aspp2", "aspp3", "aspp4")
"""Features that only the head `deeplabv3-ssul` has."""

DEPTHS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
}
STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}

VARIANTS: dict[str, dict[str, Any]] = {
    "swin_tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "window": 7},
    "swin_small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24), "window": 7},
    "swin_base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 12},
    "swin_large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48), "window": 12},
}

TRANSFORMERS: dict[str, dict[str, int]] = {
    "vit_tiny": {"embed_dim": 192, "depth": 12, "heads": 3},
    "vit_small": {"embed_dim": 384, "depth": 12, "heads": 6},
    "vit_base": {"embed_dim": 768, "depth": 12, "heads": 12},
}
"""Vision transformers with patches of 16 pixels; timm's name is `NAME_patch16_384`."""

ARCHITECTURES: dict[str, tuple[str, tuple[int, ...], bool]] = {
    "convnext_tiny": ("convnext_tiny", (0, 1, 2, 3), True),
    "convnext_base": ("convnext_base", (0, 1, 2, 3), True),
    "convnext_large": ("convnext_large", (0, 1, 2, 3), True),
    "mobilenetv3_large": ("mobilenetv3_large_100", (1, 2, 3, 4), False),
    "efficientnet_lite0": ("tf_efficientnet_lite0", (1, 2, 3, 4), False),
}
"""Name -> timm's name, indices of the maps with strides 4, 8, 16, 32, whether to pad images to a multiple of 32."""

VITS = {
    "dinov2_small": "vit_small_patch14_dinov2",
    "dinov2_base": "vit_base_patch14_dinov2",
    "dinov2_reg_small": "vit_small_patch14_reg4_dinov2",
    "dinov2_reg_base": "vit_base_patch14_reg4_dinov2",
    "dinov2_reg_large": "vit_large_patch14_reg4_dinov2",
    "dinov3_small": "vit_small_patch16_dinov3",
    "dinov3_base": "vit_base_patch16_dinov3",
    "dinov3_large": "vit_large_patch16_dinov3",
    "dinov2_reg_tiny": "vit_small_patch14_reg4_dinov2",
    "dinov3_tiny": "vit_small_patch16_dinov3",
}
"""Name -> timm's name."""

UNPUBLISHED = ("dinov2_reg_tiny", "dinov3_tiny")
"""Names in `VITS` without published weights."""

TINY_VIT = {"embed_dim": 64, "depth": 4, "num_heads": 4, "init_values": 1.0}
"""Sizes of `UNPUBLISHED`. As they start from random weights, layer scale is that of other ViTs."""

PATCHES = {"dinov2": 14, "dinov3": 16}
"""Beginning of a name in `VITS` -> side of its patches in pixels."""

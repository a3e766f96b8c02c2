"""Low-rank updates of frozen linear layers (LoRA: Hu et al., ICLR 2022)."""

import math

from torch import Tensor, nn
from torch.nn import functional

LAYERS = ("qkv", "proj")
"""Names of the layers of an attention that get an update."""


class LowRankLinear(nn.Linear):
    """A linear layer plus a trainable product of two thin matrices, W x + b + up (down x).

    The second matrix starts as zero, so the layer computes at first what it did without them. Weight and bias keep their
    names, so that published weights fit, and are not trained.

    Args:
        layer: the layer that it takes the place of; its weights are shared.
        rank: rows of the first matrix.

    Example:
        >>> import torch
        >>> plain = nn.Linear(6, 4)
        >>> layer, x = LowRankLinear(plain, rank=2), torch.ones(3, 6)
        >>> torch.equal(layer(x), plain(x)), [name for name, one in layer.named_parameters() if one.requires_grad]
        (True, ['lora_down', 'lora_up'])
    """

    def __init__(self, layer: nn.Linear, rank: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_down = nn.Parameter(layer.weight.new_empty(rank, self.in_features))
        self.lora_up = nn.Parameter(layer.weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))
        self.freeze_weights()

    def freeze_weights(self) -> None:
        """Freeze the weight and the bias, and train the two matrices."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("lora_"))

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return super().forward(input) + functional.linear(functional.linear(input, self.lora_down), self.lora_up)


def add_low_rank(model: nn.Module, rank: int) -> None:
    """Put a `LowRankLinear` in the place of the projections of every attention of a ViT of timm.

    Args:
        model: of timm; its layers keep their weights.
        rank: of the updates.

    Example:
        >>> from contseg.models.backbones.timm_backbone import make_timm_model
        >>> model = make_timm_model("vit_small_patch16_dinov3", 0.0, {"embed_dim": 16, "depth": 1, "num_heads": 2})
        >>> add_low_rank(model, 2)
        >>> type(model.blocks[0].attn.qkv).__name__, sum(one.numel() for one in model.parameters() if one.requires_grad)
        ('LowRankLinear', 14832)
    """
    for block in model.blocks:  # type: ignore[union-attr]
        attention = block.attn
        for name in LAYERS:
            layer = getattr(attention, name, None)
            if isinstance(layer, nn.Linear):
                setattr(attention, name, LowRankLinear(layer, rank))
        if hasattr(attention, "qkv_bias_separate"):
            attention.qkv_bias_separate = True  # otherwise timm reads the weight of `qkv` and does not call it

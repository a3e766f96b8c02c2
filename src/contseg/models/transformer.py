"""The block of plain vision transformers: attention of all tokens to each other, then two layers on each token."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.layers import DropPath


class TransformerBlock(nn.Module):
    """Pre-norm block of a vision transformer (Dosovitskiy et al., ICLR 2021); parameters have timm's names.

    Args:
        width: channels of a token.
        heads: of the attention.
        drop_path: probability that each of the two parts is skipped for an image in training.
        mlp_ratio: hidden channels of the two layers, relative to the width.

    Raises:
        ValueError: the heads do not divide the width.

    Example:
        >>> TransformerBlock(8, heads=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, width: int, heads: int, drop_path: float = 0.0, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = TwoLayers(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """(B, N, width) to the same."""
        x_BNC = x_BNC + self.drop_path(self.attn(self.norm1(x_BNC)))
        return x_BNC + self.drop_path(self.mlp(self.norm2(x_BNC)))


class Attention(nn.Module):
    """Attention of all tokens to all, in several heads."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide {width} channels")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        query, key, value = self.qkv(x_BNC).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class TwoLayers(nn.Module):
    """Two layers on each token, with GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        return self.fc2(functional.gelu(self.fc1(x_BNC)))


@torch.no_grad()
def initialise_transformer(network: nn.Module) -> None:
    """Truncated normal weights (standard deviation 0.02) and zero biases in every linear layer, in place."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

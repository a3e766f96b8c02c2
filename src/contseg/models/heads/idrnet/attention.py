"""The self-attention block of IDRNet."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.layers import conv_norm_act


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(T)) v over the pixels of a map, one head, with normalised 1x1 projections and no residual.

    Query and key have two stages with ReLU, value and output have one; there is no positional encoding.

    Args:
        channels, out: of input and output.
        key_channels: of the map that is attended to; default: as `channels`.
        width: T, channels of query, key and value.

    Example:
        >>> SelfAttention(12, 8, 4)(torch.zeros(2, 12, 5, 6)).shape
        torch.Size([2, 8, 5, 6])
    """

    def __init__(self, channels: int, out: int, width: int = 256, key_channels: int | None = None):
        super().__init__()
        sent = channels if key_channels is None else key_channels
        self.key = nn.Sequential(conv_norm_act(sent, width), conv_norm_act(width, width))
        self.query = nn.Sequential(conv_norm_act(channels, width), conv_norm_act(width, width))
        self.value = conv_norm_act(sent, width)
        self.out = conv_norm_act(width, out)

    def forward(self, query_BCHW: Tensor, key_BCHW: Tensor | None = None) -> Tensor:
        """(B, channels, H, W), attending to itself or to another map, to (B, out, H, W)."""
        other = query_BCHW if key_BCHW is None else key_BCHW
        query, key, value = (
            project(x).flatten(2).transpose(1, 2)
            for project, x in ((self.query, query_BCHW), (self.key, other), (self.value, other))
        )
        context = functional.scaled_dot_product_attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1))
        shape = (query_BCHW.shape[0], value.shape[2], query_BCHW.shape[2], query_BCHW.shape[3])
        return self.out(torch.transpose(context.squeeze(1), 1, 2).reshape(shape))

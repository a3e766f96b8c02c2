"""Layers of a decoder of queries, each with a residual and a norm after it: attention, masked attention, feed-forward."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with ReLU between them.

    Args:
        widths: of the input and of the output of each layer.

    Example:
        >>> MLP([8, 16, 4])(torch.zeros(2, 8)).shape
        torch.Size([2, 4])
    """

    def __init__(self, widths: Sequence[int]):
        layers: list[nn.Module] = []
        for channels, out in pairwise(widths):
            layers += [nn.ReLU()] * bool(layers) + [nn.Linear(channels, out)]
        super().__init__(*layers)


class SelfAttention(nn.Module):
    """Attention among queries; positions are added to queries and keys, not to values."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(channels, heads, batch_first=True), nn.LayerNorm(channels)

    def forward(self, queries_BQD: Tensor, positions_BQD: Tensor) -> Tensor:
        """Queries, changed."""
        placed = queries_BQD + positions_BQD
        return self.norm(queries_BQD + self.attention(placed, placed, queries_BQD, need_weights=False)[0])


class CrossAttention(nn.Module):
    """Attention of queries to the places of a map."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention, self.norm = nn.MultiheadAttention(channels, heads, batch_first=True), nn.LayerNorm(channels)

    def forward(
        self, queries_BQD: Tensor, positions_BQD: Tensor, map_BND: Tensor, places_ND: Tensor, closed_BQN: Tensor
    ) -> Tensor:
        """Queries, changed.

        Args:
            places_ND: positions of the map, added to its keys.
            closed_BQN: bool, where a query may not look.
        """
        closed = closed_BQN.repeat_interleave(self.heads, dim=0)
        keys = map_BND + places_ND
        found = self.attention(queries_BQD + positions_BQD, keys, map_BND, attn_mask=closed, need_weights=False)[0]
        return self.norm(queries_BQD + found)


class FeedForward(nn.Module):
    """Two linear layers with ReLU."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.layers, self.norm = MLP([channels, hidden, channels]), nn.LayerNorm(channels)

    def forward(self, queries_BQD: Tensor) -> Tensor:
        """Queries, changed."""
        return self.norm(queries_BQD + self.layers(queries_BQD))


class DecoderLayer(nn.Module):
    """Self attention, masked cross attention, feed-forward; virtual queries pass the last one only.

    Example:
        >>> layer, queries = DecoderLayer(8, 2, 16), torch.zeros(1, 5, 8)
        >>> closed = torch.zeros(1, 4, 6, dtype=torch.bool)
        >>> layer(queries, queries, torch.zeros(1, 6, 8), torch.zeros(6, 8), closed, virtual=1).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, channels: int, heads: int, hidden: int):
        super().__init__()
        self.self_attention = SelfAttention(channels, heads)
        self.cross_attention = CrossAttention(channels, heads)
        self.feed_forward = FeedForward(channels, hidden)

    def forward(
        self,
        queries_BQD: Tensor,
        positions_BQD: Tensor,
        map_BND: Tensor,
        places_ND: Tensor,
        closed_BQN: Tensor,
        virtual: int = 0,
    ) -> Tensor:
        """Queries, changed; arguments as of `CrossAttention`.

        Args:
            virtual: number of virtual queries, which are the last.
        """
        real = queries_BQD.shape[1] - virtual
        queries, positions = queries_BQD[:, :real], positions_BQD[:, :real]
        seen = self.self_attention(queries, positions)
        seen = self.cross_attention(seen, positions, map_BND, places_ND, closed_BQN[:, :real])
        return self.feed_forward(torch.cat([seen, queries_BQD[:, real:]], dim=1))

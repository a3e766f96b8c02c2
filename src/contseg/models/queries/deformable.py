"""Deformable attention (Zhu et al., ICLR 2021) with `grid_sample`: every query looks at a few places near its own.

The places of each level, head and point are a linear function of the query. Nothing has to be compiled.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def sampled_attention(
    values_BNHD: Tensor, sizes: Sequence[tuple[int, int]], places_BQHLP2: Tensor, weights_BQHLP: Tensor
) -> Tensor:
    """Weighted sums of values at places of several levels, (B, Q, heads * D).

    Args:
        values_BNHD: per head, of all levels one after the other, N = sum of h w.
        sizes: (h, w) of each level.
        places_BQHLP2: (x, y), 0 and 1 are the borders of a level; bilinear between centres of pixels, 0 outside.
        weights_BQHLP: of the points of all levels.

    Example:
        >>> values, places = torch.rand(1, 4 + 16, 2, 3), torch.rand(1, 5, 2, 2, 6, 2)
        >>> sampled_attention(values, [(2, 2), (4, 4)], places, torch.rand(1, 5, 2, 2, 6)).shape
        torch.Size([1, 5, 6])
    """
    batch, _, heads, channels = values_BNHD.shape
    total = torch.zeros((), device=values_BNHD.device, dtype=values_BNHD.dtype)
    for level, values in enumerate(values_BNHD.split([height * width for height, width in sizes], dim=1)):
        maps = values.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sizes[level])
        grid = places_BQHLP2[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1  # (B H, Q, P, 2)
        sampled = functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        weights = weights_BQHLP[:, :, :, level].transpose(1, 2).flatten(0, 1)
        total = total + (sampled * weights[:, None]).sum(dim=3)  # (B H, D, Q)
    return total.view(batch, heads * channels, -1).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Attention of queries to a few places of each level.

    Args:
        channels: of queries and values.
        heads, levels, points: for each head and level, so many places.

    Example:
        >>> attention, sizes = DeformableAttention(16, heads=2, levels=2, points=4), [(2, 2), (4, 4)]
        >>> attention(torch.rand(1, 20, 16), centres(sizes, torch.zeros(())), torch.rand(1, 20, 16), sizes).shape
        torch.Size([1, 20, 16])
    """

    def __init__(self, channels: int, heads: int = 8, levels: int = 3, points: int = 4):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.value, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """At first each head looks in a direction of its own, with equal weights; its points are 1, 2, ... pixels away."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=1)
        directions = directions / directions.abs().amax(dim=1, keepdim=True)
        distances = torch.arange(1, self.points + 1)
        grid = directions[:, None, None] * distances[:, None]  # (heads, 1, points, 2)
        self.offsets.bias.copy_(grid.expand(-1, self.levels, -1, -1).flatten())
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for tensor in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(tensor)

    def forward(
        self, queries_BQD: Tensor, centres_Q2: Tensor, values_BND: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """(B, Q, D).

        Args:
            centres_Q2: the place (x, y) in [0, 1] of each query; offsets are in pixels of a level.
            values_BND: of all levels, one after the other.
            sizes: (h, w) of each level.
        """
        batch, queries, _ = queries_BQD.shape
        shape = (batch, queries, self.heads, self.levels, self.points)
        scales = queries_BQD.new_tensor([[width, height] for height, width in sizes])
        offsets = self.offsets(queries_BQD).view(*shape, 2) / scales[:, None]
        weights = self.weights(queries_BQD).view(*shape[:3], -1).softmax(dim=-1).view(shape)
        values = self.value(values_BND).unflatten(2, (self.heads, -1))
        return self.output(sampled_attention(values, sizes, centres_Q2[:, None, None, None] + offsets, weights))


def centres(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """The centre (x, y) in [0, 1] of every place of all levels, (N, 2).

    Example:
        >>> centres([(1, 2)], torch.zeros(()))
        tensor([[0.2500, 0.5000],
                [0.7500, 0.5000]])
    """
    found = []
    for height, width in sizes:
        rows, columns = ((torch.arange(length).to(like) + 0.5) / length for length in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        found.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    return torch.cat(found)

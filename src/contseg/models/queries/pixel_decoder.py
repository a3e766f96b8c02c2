"""The pixel decoder of Mask2Former: deformable attention between the levels of a backbone, and features for masks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contseg.models.layers import resize
from contseg.models.queries.deformable import DeformableAttention, centres
from contseg.models.queries.layers import FeedForward
from contseg.models.queries.sine import sine_map

GROUPS = 32
"""Groups of the norms after convolutions, at most."""


class EncoderLayer(nn.Module):
    """Deformable attention among all places of all levels, and feed-forward; each with a residual and a norm after it."""

    def __init__(self, channels: int, heads: int, levels: int, hidden: int):
        super().__init__()
        self.attention, self.norm = DeformableAttention(channels, heads, levels), nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, hidden)

    def forward(self, map_BND: Tensor, places_ND: Tensor, centres_N2: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(B, N, D), changed; `places_ND` are added to queries, not to values."""
        seen = self.attention(map_BND + places_ND, centres_N2, map_BND, sizes)
        return self.feed_forward(self.norm(map_BND + seen))


class PixelDecoder(nn.Module):
    """From the maps of a backbone to levels for a decoder of queries, and to features for masks.

    Args:
        widths: channels of the backbone's maps, finest first (strides 4, 8, 16, 32).
        channels: of all results.
        heads, hidden, layers: of the attention between the three coarsest levels.

    Example:
        >>> decoder = PixelDecoder([8, 16, 32, 64], channels=16, heads=2, hidden=32, layers=2)
        >>> maps = [torch.rand(1, width, side, side) for width, side in ((8, 16), (16, 8), (32, 4), (64, 2))]
        >>> levels, masks = decoder(maps)
        >>> [tuple(one.shape[2:]) for one in levels], masks.shape
        ([(2, 2), (4, 4), (8, 8)], torch.Size([1, 16, 16, 16]))
    """

    def __init__(self, widths: Sequence[int], channels: int = 256, heads: int = 8, hidden: int = 1024, layers: int = 6):
        super().__init__()
        finest, *coarser = widths
        self.channels = channels
        self.inputs = nn.ModuleList(_projection(width, channels) for width in reversed(coarser))
        self.level = nn.Parameter(torch.randn(len(coarser), channels))
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, len(coarser), hidden) for _ in range(layers))
        self.lateral = _projection(finest, channels, bias=False)
        self.refine = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), _norm(channels), nn.ReLU(inplace=True)
        )
        self.masks = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Levels (B, D, h, w), coarsest first, and features for masks (B, D, H, W) at the finest map's size.

        Args:
            maps: (B, C, h, w), finest first.
        """
        finest, *coarser = maps
        projected = [layer(one) for layer, one in zip(self.inputs, reversed(coarser), strict=True)]
        sizes = [(one.shape[2], one.shape[3]) for one in projected]
        found = torch.cat([one.flatten(2).transpose(1, 2) for one in projected], dim=1)
        places = [sine_map(*size, self.channels, found) + level for size, level in zip(sizes, self.level, strict=True)]
        middles = centres(sizes, found)
        for layer in self.layers:
            found = layer(found, torch.cat(places), middles, sizes)
        parts = found.split([height * width for height, width in sizes], dim=1)
        levels = [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
        joined = self.lateral(finest) + resize(levels[-1], (finest.shape[2], finest.shape[3])).to(finest)
        return levels, self.masks(self.refine(joined))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(GROUPS, channels), channels)


def _projection(width: int, channels: int, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, channels, 1, bias=bias), _norm(channels))

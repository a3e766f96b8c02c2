"""The head of EoMT: learned queries, the vectors of their masks, and the map that these are multiplied with."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contseg.models.backbones.vit import ChannelNorm
from contseg.models.eomt.annealing import Spans, default_spans, mask_probability
from contseg.models.heads.head import Head
from contseg.models.names import Initialisation


class Doubling(nn.Module):
    """Twice the resolution: a 2x2 deconvolution, GELU, a 3x3 convolution of each channel, and a norm over the channels.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = ChannelNorm(channels, eps=1e-6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        return self.norm(self.conv2(nn.functional.gelu(self.conv1(x_BCHW))))


def doublings(patch: int) -> int:
    """Number of doublings from patches to masks.

    Example:
        >>> [doublings(patch) for patch in (4, 8, 14, 16)]
        [1, 1, 1, 2]
    """
    return max(1, int(math.log2(patch)) - 2)


class EoMTHead(Head):
    """What EoMT adds to a ViT, except for the classes of its queries.

    Args:
        width: channels of the ViT.
        queries: number of queries.
        blocks: number of blocks that the queries pass.
        patch: side of a patch in pixels.
        spans: of the annealing, as shares of the updates; default: `default_spans`.
        selecting: queries are patches that are selected, and not learned.

    Attributes:
        probabilities: for each block, how probable it is that a query only looks at the patches of its mask. Part of the
            state; 1 in a new head, and set by `anneal`.
    """

    uses = ()
    taps = ("tokens", "queries")

    def __init__(
        self, width: int, queries: int, blocks: int, patch: int, spans: Spans | None = None, selecting: bool = False
    ):
        super().__init__()
        self.width = width
        self.count = queries
        if selecting:
            self.candidates = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        else:
            self.q = nn.Embedding(queries, width)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.upscale = nn.Sequential(*(Doubling(width) for _ in range(doublings(patch))))
        self.stride = patch // 2 ** doublings(patch)
        self.spans = default_spans(blocks) if spans is None else [*spans]
        self.probabilities = [1.0] * blocks

    @property
    def blocks(self) -> int:
        """Number of blocks that the queries pass."""
        return len(self.probabilities)

    def anneal(self, update: int, updates: int) -> None:
        """Set the probabilities to those after some updates.

        Args:
            update: number of finished updates.
            updates: number of all updates of the step.
        """
        self.probabilities = [mask_probability(update, start * updates, end * updates) for start, end in self.spans]

    def masks(self, queries_BQD: Tensor, map_BDHW: Tensor) -> Tensor:
        """Mask logits (B, Q, H, W) of normalised queries over an upscaled map."""
        return torch.einsum("bqd,bdhw->bqhw", self.mask_head(queries_BQD), map_BDHW)

    def initialise(self, kind: Initialisation | None = None) -> None:
        """Nothing: the weights are PyTorch's."""

    def get_extra_state(self) -> Tensor:
        """The probabilities."""
        return torch.tensor(self.probabilities, dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        """Restore the probabilities."""
        if not state.is_meta:  # which only checks names and shapes
            self.probabilities = state.tolist()

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Nothing: every layer is used by the prediction."""

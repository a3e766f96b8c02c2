"""Vision transformers with one class token (Dosovitskiy et al., ICLR 2021) as four maps of one resolution."""

from collections.abc import Collection
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.backbones.backbone import Backbone
from contseg.models.layers import padding_to
from contseg.models.names import Freeze
from contseg.models.transformer import TransformerBlock, initialise_transformer

PATCH = 16


class VisionTransformer(Backbone):
    """ViT with patches of 16 x 16 pixels, as in Segmenter (Strudel et al., ICCV 2021) and MBS.

    Images may have any size: normalised images are padded with zeros at the bottom and right to a multiple of 16, and the
    maps cover the padded image (`covered`). Position embeddings are those of a square grid, resized bilinearly to that of
    the image. The class token takes part in the attention and is in no map. Norms have an epsilon of 1e-5, as released;
    the pre-trained networks of timm, whose names the parameters have, were trained with 1e-6.

    The four maps are the tokens after each quarter of the blocks, the last of them after the norm.

    Args:
        embed_dim: channels.
        depth: blocks.
        heads: of the attention.
        grid: side of the grid of position embeddings, in patches.
        drop_path: probability that the last block is skipped for an image in training; earlier ones linearly less.

    Returns (forward):
        four maps (B, embed_dim, ceil(H / 16), ceil(W / 16)).

    Example:
        >>> tiny = VisionTransformer(embed_dim=16, depth=4, heads=2, grid=4)
        >>> [tuple(stage.shape[1:]) for stage in tiny(torch.zeros(1, 3, 65, 81))], tiny.covered((65, 81))
        ([(16, 5, 6), (16, 5, 6), (16, 5, 6), (16, 5, 6)], (80, 96))
    """

    output_stride = PATCH

    def __init__(self, embed_dim: int = 768, depth: int = 12, heads: int = 12, grid: int = 32, drop_path: float = 0.0):
        super().__init__()
        self.channels = [embed_dim] * 4
        self.patch_embed = PatchEmbedding(embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, embed_dim))
        chances = [drop_path * number / max(depth - 1, 1) for number in range(depth)]
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, heads, chance) for chance in chances)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Four maps, see the class."""
        height, width = images_BCHW.shape[2:]
        embedded = self.patch_embed(functional.pad(images_BCHW, (0, padding_to(PATCH, width), 0, padding_to(PATCH, height))))
        grid = (embedded.shape[2], embedded.shape[3])
        tokens = torch.cat([self.cls_token.expand(embedded.shape[0], -1, -1), embedded.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + resized_positions(self.pos_embed, grid)
        ends, kept = self._ends()[:3], []
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens)
            kept += [tokens] * ends.count(number)
        kept.append(self.norm(tokens))
        return [each[:, 1:].transpose(1, 2).unflatten(2, grid) for each in kept]

    def covered(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of the padded image."""
        height, width = size
        return height + padding_to(PATCH, height), width + padding_to(PATCH, width)

    @torch.no_grad()
    def initialise(self) -> None:
        """Truncated normal weights and position embeddings (standard deviation 0.02), zero biases."""
        initialise_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def _ends(self) -> list[int]:
        """The number of blocks before the end of each quarter."""
        return [-(-len(self.blocks) * quarter // 4) for quarter in (1, 2, 3, 4)]

    def stages(self) -> list[list[nn.Module]]:
        """The blocks of each quarter; the embedding belongs to the first and the norm to the last."""
        blocks = list(self.blocks)
        first, *others, last = (blocks[start:end] for start, end in pairwise([0, *self._ends()]))
        return [[self.patch_embed, *first], *others, [*last, self.norm]]

    def freeze(self, freeze: Freeze, used: Collection[int]) -> None:
        """See `Backbone.freeze`. The position embeddings and the class token belong to the first stage."""
        super().freeze(freeze, used)
        if freeze not in ("none", "norm"):
            for parameter in self.parameters(recurse=False):
                parameter.requires_grad_(False)


class PatchEmbedding(nn.Module):
    """Images (B, 3, H, W) to (B, C, H / 16, W / 16)."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """See the class."""
        return self.proj(images_BCHW)


def resized_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings of a square grid, resized bilinearly to another one; that of the class token is kept.

    Args:
        positions: (1, 1 + side^2, C), the class token first.
        grid: height and width in patches.

    Returns:
        (1, 1 + height * width, C).

    Example:
        >>> resized_positions(torch.ones(1, 1 + 16, 2), (3, 5)).shape
        torch.Size([1, 16, 2])
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    square = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    resized = functional.interpolate(square, grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

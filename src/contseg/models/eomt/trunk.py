"""A vision transformer whose last blocks also process queries (EoMT: Kerssies et al., CVPR 2025)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.models.backbones.timm_vit import TimmViT
from contseg.models.layers import padding_to


@dataclass
class Tokens:
    """Tokens between two blocks.

    Args:
        values: the tokens (B, N, D): queries, if there are any, then class token and registers, then patches.
        grid: rows and columns of patches.
        rotations: rotary positions of the patches, or None.
        query_count: number of queries in front.
        prefix_count: number of class tokens and registers.
    """

    values: Tensor
    grid: tuple[int, int]
    rotations: Tensor | None
    query_count: int
    prefix_count: int

    @property
    def queries(self) -> Tensor:
        """The queries, (B, Q, D)."""
        return self.values[:, : self.query_count]

    @property
    def patches(self) -> Tensor:
        """The patches as a map, (B, D, rows, columns)."""
        return as_map(self.values[:, self.query_count + self.prefix_count :], self.grid)


def as_map(patches_BND: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches (B, rows x columns, D) as a map (B, D, rows, columns)."""
    return patches_BND.transpose(1, 2).unflatten(2, grid)


class QueryTrunk(TimmViT):
    """A ViT that is called block by block, so that queries can enter before any of them. It has no pyramid.

    Args: as of `TimmViT`.

    Raises:
        ContsegError: timm is not installed, or the blocks have no layer scale.

    Example:
        >>> trunk = QueryTrunk("dinov2_reg_tiny", size=(32, 48), patch=16)
        >>> tokens = trunk.run(trunk.embed(torch.zeros(1, 3, 32, 48)), 0, 2)
        >>> tokens = trunk.run(trunk.with_queries(tokens, torch.zeros(5, 64)), 2, 4)
        >>> tuple(tokens.values.shape), tuple(tokens.patches.shape)
        ((1, 16, 64), (1, 64, 2, 3))
    """

    def __init__(self, *given: Any, **options: Any):
        super().__init__(*given, **options)
        self.require_layer_scale()
        self.output_stride = self.patch

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.model.blocks)

    def embed(self, images_BCHW: Tensor) -> Tokens:
        """The tokens before the first block. Images are padded with zeros at the bottom and right to whole patches.

        Raises:
            ContsegError: the model was made for one size (`dynamic_img_size`), and the images have another.
        """
        height, width = images_BCHW.shape[2:]
        down, right = padding_to(self.patch, height), padding_to(self.patch, width)
        images = functional.pad(images_BCHW, (0, right, 0, down))
        grid = (images.shape[2] // self.patch, images.shape[3] // self.patch)
        if not self.model.dynamic_img_size and grid != tuple(self.model.patch_embed.grid_size):
            own = " x ".join(str(side * self.patch) for side in self.model.patch_embed.grid_size)
            raise ContsegError(
                f"network.backbone: made for images of {own} pixels (dynamic_img_size=false), and one is {height} x {width};"
                " set network.backbone.size, data.crop and evaluation.crop to one size, or remove the option"
            )
        embedded = self.model._pos_embed(self.model.patch_embed(images))
        values, rotations = embedded if isinstance(embedded, tuple) else (embedded, None)
        return Tokens(values, grid, rotations, 0, int(self.model.num_prefix_tokens))

    def run(self, tokens: Tokens, first: int, last: int, mask_B1NN: Tensor | None = None) -> Tokens:
        """The tokens after the blocks `first` to `last` - 1.

        Args:
            mask_B1NN: true where a token (row) may look at another one (column); None: everywhere.
        """
        values, given = tokens.values, {"attn_mask": mask_B1NN}
        for block in self.model.blocks[first:last]:
            if tokens.rotations is not None:
                block.attn.num_prefix_tokens = tokens.query_count + tokens.prefix_count  # only what follows is rotated
                given["rope"] = tokens.rotations
            values = block(values, **given)
        return Tokens(values, tokens.grid, tokens.rotations, tokens.query_count, tokens.prefix_count)

    def with_queries(self, tokens: Tokens, queries: Tensor) -> Tokens:
        """Tokens with queries in front, (Q, D) for every image or (B, Q, D)."""
        given = queries.expand(tokens.values.shape[0], *queries.shape[-2:])  # not `len`, which an export would fix
        values = torch.cat([given, tokens.values], dim=1)
        return Tokens(values, tokens.grid, tokens.rotations, queries.shape[-2], tokens.prefix_count)

    def normalised(self, tokens: Tokens) -> Tokens:
        """The tokens after the final norm of the ViT."""
        return Tokens(self.model.norm(tokens.values), tokens.grid, tokens.rotations, tokens.query_count, tokens.prefix_count)

"""Vision transformers of timm: what a pyramid of maps and a network on queries have in common."""

import re
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from contseg.errors import ContsegError
from contseg.models.backbones.backbone import Backbone
from contseg.models.backbones.lora import LowRankLinear, add_low_rank
from contseg.models.backbones.stem import ConvolutionalStem
from contseg.models.backbones.timm_backbone import make_timm_model
from contseg.models.freezing import freeze_modules, freeze_parameters
from contseg.models.names import TINY_VIT, UNPUBLISHED, VITS, Freeze

POSITIONS = 0.3
"""Deviation of position embeddings that start from nothing, about half that of embedded patches."""


class TimmViT(Backbone):
    """Base of backbones with a vision transformer of timm.

    Args:
        name: a key of `VITS`.
        drop_path: probability that the last block is skipped for an image in training.
        options: of timm's constructor, such as `depth`.
        size: height and width of the images for which position embeddings are made; default: timm's. For others they are
            interpolated in every forward pass.
        patch: side of a patch in pixels; default: that of the published weights, which are resampled for another one.
        rank: of low-rank updates of the attention (`LowRankLinear`), with which nothing else of the ViT is trained, except a
            stem, which has no published weights; 0: none.
        stem: pairs of residual convolutions of a `ConvolutionalStem` that embeds patches; None: one convolution embeds them.

    Raises:
        ContsegError: timm is not installed.
    """

    def __init__(
        self,
        name: str,
        drop_path: float = 0.0,
        options: dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        patch: int | None = None,
        rank: int = 0,
        stem: int | None = None,
    ):
        super().__init__()
        self.name = name
        self.timm_name = VITS[name]
        given: dict[str, Any] = {"dynamic_img_size": True} | (TINY_VIT if name in UNPUBLISHED else {})
        given |= {key: value for key, value in (("img_size", size), ("patch_size", patch)) if value is not None}
        self.model = make_timm_model(self.timm_name, drop_path, given | (options or {}))
        self.width = int(self.model.embed_dim)
        self.patch = int(self.model.patch_embed.patch_size[0])
        self.channels = [self.width] * 4
        self.stem = stem
        if stem is not None:
            self.model.patch_embed.proj = ConvolutionalStem(self.patch, self.width, stem)
        if rank:
            add_low_rank(self.model, rank)
        self.rank = rank

    @torch.no_grad()
    def initialise(self) -> None:
        """Weights for training from nothing, of names without published weights; others keep those of timm.

        Those of timm have a deviation of 0.02 at any width, which leaves narrow blocks near the identity: a block changes
        tokens of 64 channels by a twentieth. Positions then are a thirtieth of embedded patches.
        """
        if self.name not in UNPUBLISHED:
            return
        for module in self.model.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
        if self.model.pos_embed is not None:
            nn.init.trunc_normal_(self.model.pos_embed, std=POSITIONS)

    def stages(self) -> list[list[nn.Module]]:
        """The blocks in four nearly equal parts; the embedding belongs to the first and the norm to the last."""
        blocks = list(self.model.blocks)
        parts = [blocks[start:end] for start, end in pairwise(self.cuts)]
        return [[self.model.patch_embed, *parts[0]], parts[1], parts[2], [*parts[3], self.model.norm]]

    @property
    def cuts(self) -> list[int]:
        """Where the blocks are cut into stages: five numbers."""
        return [len(self.model.blocks) * quarter // 4 for quarter in range(5)]

    def freeze(self, freeze: Freeze, used: Collection[int]) -> None:
        """See `Backbone.freeze`. The position embeddings and the tokens before the patches belong to the first stage."""
        super().freeze(freeze, used)
        if self.rank:
            kept = self.model.patch_embed if self.stem is not None else None
            freeze_modules(child for child in self.model.children() if child is not kept)
            freeze_parameters(self.model, [name for name, _ in self.model.named_parameters(recurse=False)], norms=False)
            for module in self.model.modules():
                if isinstance(module, LowRankLinear):
                    module.freeze_weights()
        elif freeze not in ("none", "norm"):
            for parameter in self.model.parameters(recurse=False):
                parameter.requires_grad_(False)

    def layers_above(self, name: str) -> int:
        """See `Backbone.layers_above`: the layers are the blocks; the embedding belongs to the first, the norm to none."""
        block = re.match(r"model\.blocks\.(\d+)\.", name)
        if block:
            return len(self.model.blocks) - 1 - int(block[1])
        return 0 if name.startswith(("model.norm.", "model.fc_norm.", "pyramid.")) else len(self.model.blocks) - 1

    def require_layer_scale(self) -> None:
        """Raise ContsegError if a block of the model has none."""
        for number, block in enumerate(self.model.blocks):
            scales = [getattr(block, name, None) for name in ("ls1", "ls2", "gamma_1", "gamma_2")]
            if sum(one is not None and not isinstance(one, nn.Identity) for one in scales) != 2:
                raise ContsegError(
                    f"network.backbone.options: block {number} of {self.timm_name} has no layer scale, which the head eomt"
                    " needs; set network.backbone.options.init_values=1e-5"
                )

"""SimCIS' decoder: queries are features of the image, selected by the classifier itself, with boxes.

The positions that a model selects are part of its answer: the next step's model is compared at the old model's positions
(`contseg.losses.masks.selection.selection_divergence`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.layers import resize
from contseg.models.output import MaskPrediction
from contseg.models.queries.layers import MLP, DecoderLayer
from contseg.models.queries.sine import sine_boxes, sine_map

PRIOR_SIDE = 0.05
"""Side of the prior box at the coarsest level; it doubles with each finer one, as in the released code."""
PRIOR_RANGE = (0.01, 0.99)
"""Places whose prior box has a number outside have no features for the selection."""

EDGE = 1e-5
"""Shares are at least this far from 0 and 1 in a logit."""


@dataclass(frozen=True)
class Memory:
    """The levels of a pixel decoder for the decoder of queries.

    Args:
        levels: (B, h w, D) each, coarsest first.
        sizes: (h, w) of each.
        places: positions of each, (h w, D).
        candidates: features for the selection, of all levels, (B, N, D).
        scores: the best class of each candidate, (B, N).
        priors: logits of the prior boxes of all candidates, (N, 4); infinite where there are no features.
        mask_features: (B, D, H, W).
    """

    levels: list[Tensor]
    sizes: list[tuple[int, int]]
    places: list[Tensor]
    candidates: Tensor
    scores: Tensor
    priors: Tensor
    mask_features: Tensor


@dataclass(frozen=True)
class Decoded:
    """Predictions of a decoder.

    Args:
        positions: (B, Q) selected candidates.
        features: (B, Q, D) of these, without virtual queries: what a bank of virtual queries keeps.
        predictions: of the selection, then of each layer; virtual queries are the last of the queries.
    """

    positions: Tensor
    features: Tensor
    predictions: list[MaskPrediction]


class SelectingDecoder(nn.Module):
    """Selects queries from the image and decodes them.

    Args:
        channels: D of all maps.
        classes: outputs of the class head, sigmoids without no-object; SimCIS has one for every class from the start.
        queries: Q.
        heads, hidden, layers: of the decoder.
        levels: maps of the pixel decoder.

    Example:
        >>> decoder = SelectingDecoder(16, classes=7, queries=5, heads=2, hidden=32, layers=3)
        >>> levels = [torch.rand(1, 16, side, side) for side in (2, 4, 8)]
        >>> found = decoder(levels, torch.rand(1, 16, 16, 16))
        >>> found.predictions[-1].class_logits.shape, found.predictions[-1].mask_logits.shape, len(found.predictions)
        (torch.Size([1, 5, 7]), torch.Size([1, 5, 16, 16]), 4)
    """

    def __init__(
        self, channels: int, classes: int, queries: int, heads: int = 8, hidden: int = 2048, layers: int = 9, levels: int = 3
    ):
        super().__init__()
        self.channels, self.queries = channels, queries
        self.layers = nn.ModuleList(DecoderLayer(channels, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.level = nn.Embedding(levels, channels)
        self.candidate, self.candidate_norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.class_head = nn.Linear(channels, classes)
        self.mask_head = MLP([channels] * 4)
        self.box_head = MLP([channels, channels, channels, 4])
        self.position = MLP([2 * channels, channels, channels])
        self.scale = MLP([channels] * 3)

    def forward(self, levels: Sequence[Tensor], mask_features_BDHW: Tensor, virtual_BVD: Tensor | None = None) -> Decoded:
        """The predictions of an image's levels.

        Args:
            levels: (B, D, h, w) each, coarsest first.
            virtual_BVD: features that join the selected ones in the class loss only.
        """
        memory = self.remember(levels, mask_features_BDHW)
        positions = memory.scores.topk(self.queries, dim=1).indices
        return self.decode(memory, positions, virtual_BVD)

    def remember(self, levels: Sequence[Tensor], mask_features_BDHW: Tensor) -> Memory:
        """The levels as sequences, and the candidates for the selection."""
        sizes = [(one.shape[2], one.shape[3]) for one in levels]
        flat = [one.flatten(2).transpose(1, 2) + row for one, row in zip(levels, self.level.weight, strict=True)]
        places = [sine_map(*size, self.channels, flat[0]) for size in sizes]
        priors = torch.cat([_priors(*size, level, flat[0]) for level, size in enumerate(sizes)])
        kept = ((priors > PRIOR_RANGE[0]) & (priors < PRIOR_RANGE[1])).all(dim=1, keepdim=True)
        candidates = self.candidate_norm(self.candidate(torch.cat(flat, dim=1) * kept))
        scores = self.class_head(self.norm(candidates)).amax(dim=2)
        priors = priors.logit().masked_fill(~kept, torch.inf)
        return Memory(flat, sizes, places, candidates, scores.detach(), priors, mask_features_BDHW)

    def decode(
        self,
        memory: Memory,
        positions_BQ: Tensor,
        virtual_BVD: Tensor | None = None,
        reference_positions_BQ: Tensor | None = None,
    ) -> Decoded:
        """The predictions of the candidates at some positions.

        Args:
            positions_BQ: of the candidates.
            virtual_BVD: as of `forward`.
            reference_positions_BQ: of the candidates whose boxes are the first reference; default: the same. The released
                code decodes the old model's positions from the boxes of the new ones.
        """
        features = _at(memory.candidates, positions_BQ)
        queries = features if virtual_BVD is None else torch.cat([features, virtual_BVD.to(features)], dim=1)
        virtual = queries.shape[1] - features.shape[1]
        origin = positions_BQ if reference_positions_BQ is None else reference_positions_BQ
        boxes = (self.box_head(_at(memory.candidates, origin)) + memory.priors[origin]).sigmoid()
        boxes = functional.pad(boxes, (0, 0, 0, virtual))
        predictions = [self._predict(queries, boxes, memory)]
        queries, boxes = queries.detach(), boxes.detach()
        for number, layer in enumerate(self.layers):
            level = number % len(memory.levels)
            closed = _closed(predictions[-1].mask_logits, memory.sizes[level])
            positions = self.scale(queries) * self.position(sine_boxes(boxes, self.channels))
            queries = layer(queries, positions, memory.levels[level], memory.places[level], closed, virtual)
            refined = (self.box_head(queries) + _logit(boxes)).sigmoid()
            predictions.append(self._predict(queries, refined, memory))
            boxes = refined.detach()
        return Decoded(positions_BQ, features, predictions)

    def _predict(self, queries_BQD: Tensor, boxes_BQ4: Tensor, memory: Memory) -> MaskPrediction:
        normed = self.norm(queries_BQD)
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask_head(normed), memory.mask_features)
        return MaskPrediction(self.class_head(normed), masks, boxes_BQ4)


def _logit(share: Tensor) -> Tensor:
    return (share.clamp_min(EDGE) / (1 - share).clamp_min(EDGE)).log()


def _priors(height: int, width: int, level: int, like: Tensor) -> Tensor:
    """The prior box of each place, (h w, 4): its centre, and the side of the level."""
    rows, columns = ((torch.arange(length).to(like) + 0.5) / length for length in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    side = torch.full_like(x, PRIOR_SIDE * 2**level)
    return torch.stack([x, y, side, side], dim=-1).flatten(0, 1)


def _at(values_BND: Tensor, positions_BQ: Tensor) -> Tensor:
    return values_BND.gather(1, positions_BQ[..., None].expand(-1, -1, values_BND.shape[2]))


def _closed(mask_logits_BQHW: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, Q, h w) bool: where the mask is below 1/2; a row that would be closed completely is open."""
    closed = resize(mask_logits_BQHW.detach(), size).flatten(2) < 0
    return closed & ~closed.all(dim=2, keepdim=True)

"""EoMT: a plain ViT whose last blocks also process learned queries, each of which predicts a mask and its class."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.models.backbones.options import ViTOptions
from contseg.models.classifier import Start
from contseg.models.eomt.annealing import attention_mask, visible_patches
from contseg.models.eomt.head import EoMTHead
from contseg.models.eomt.selection import best_places, without_attention
from contseg.models.eomt.trunk import QueryTrunk, Tokens
from contseg.models.from_features import FromFeatures
from contseg.models.heads.transformer_options import EoMTOptions
from contseg.models.mask_classifier import MaskClassifier
from contseg.models.names import STAGES
from contseg.models.options import NetworkOptions
from contseg.models.output import AuxiliaryOutput, MaskPrediction, SegmenterOutput
from contseg.models.segmenter import Segmenter

NO_START = "network.head: eomt cannot start from features; set training.features=live"
STARTS: dict[str, Any] = {"background": "no-object", "reserved": "random"}
"""Starts of new classes of networks with a background, and what they are on masks."""
EVALUATED = 0.5
"""In evaluation, a block is masked where the probability is greater."""


class EoMTSegmenter(Segmenter):
    """EoMT (Kerssies et al., CVPR 2025) over a ViT of timm, with classes that grow.

    Queries are put in front of the tokens before the last blocks. The prediction of each query, before each of these blocks
    and after the last one, is a class (or no object) and a mask. In training, a query only looks at the patches of its mask,
    with a probability that falls to 0 (`EoMTHead.anneal`). In evaluation a block is masked where this probability is above
    one half and nothing is drawn: not at all in a network whose training is complete, so that the other predictions are not
    computed.

    Images may have any size: they are padded with zeros at the bottom and right to whole patches, and masks are cropped.

    Taps: `stage1` to `stage4`, the patches after each quarter of the blocks, (B, D, rows, columns), the last one
    normalised; `tokens`, the patches before the queries enter, not normalised; `queries`, (B, blocks + 1, Q, D), the
    normalised queries of all predictions; `head`, the upscaled map that mask vectors are multiplied with; `logits`. With
    `start: patches` also `selection`, (B, patches, K + 1), the class logits of all patches, and `selected`, (B, Q, D), the
    queries before the blocks.

    With a readout, which reads the map of a tap, there are no masks, and logits are those of the readout.

    Args:
        options: of the network, with a ViT and the head `eomt`.
        widths: classes of each step so far, without no-object.

    Raises:
        ContsegError: the ViT lacks what EoMT needs (names what to set), or timm is not installed.

    Example:
        >>> options = NetworkOptions(
        ...     backbone={"name": "dinov2_reg_tiny", "patch": 16, "size": 64},
        ...     head={"name": "eomt", "queries": 5, "blocks": 2},
        ... )
        >>> segmenter = EoMTSegmenter(options, [3]).eval()
        >>> segmenter.grow(1, "random")
        >>> output = segmenter(torch.zeros(2, 3, 64, 64), taps=("queries",))
        >>> tuple(output.masks.class_logits.shape), tuple(output.masks.mask_logits.shape), output.logits.shape[1]
        ((2, 5, 5), (2, 5, 16, 16), 4)
    """

    backbone: QueryTrunk
    head: EoMTHead

    def __init__(self, options: NetworkOptions, widths: Sequence[int]):
        trunk, head = options.backbone, options.head
        assert isinstance(trunk, ViTOptions)
        assert isinstance(head, EoMTOptions)
        super().__init__(options, widths, trunk.make_trunk())
        self._selecting = head.start == "patches"
        self._masked, self._softmax = head.masked, head.shares == "softmax"
        if head.blocks > self.backbone.depth:
            raise ContsegError(
                f"network.head.blocks: {head.blocks}, and {trunk.name} has {self.backbone.depth} blocks; set at most that"
            )

    def _classifier(self, widths: list[int]) -> Any:
        return MaskClassifier(self.head.width, widths) if self.options.readout is None else super()._classifier(widths)

    def grow(self, count: int, start: Start = "background") -> None:
        """Add `count` classes, at `random` or from `background`, which is no-object here, see `MaskClassifier.grow`.

        With a readout as `GrowingClassifier.grow`.
        """
        if self.options.readout is not None:
            self.classifier.grow(count, start)
        else:
            self.classifier.grow(count, STARTS.get(start, start))

    def reserve(self, widths: Sequence[int]) -> None:
        """Nothing can be reserved.

        Raises:
            ContsegError: `widths` is not empty.
        """
        if widths:
            raise ContsegError("network.head: eomt has no classifiers of later steps; use another method or another head")

    def forward(
        self, images_BCHW: Tensor | None, taps: Sequence[str] = (), start: FromFeatures | None = None
    ) -> SegmenterOutput:
        """Masks, their classes, and the requested taps; in training also the earlier predictions, as auxiliary outputs.

        Raises:
            ContsegError: this network lacks a requested tap, or should start from features.
        """
        self._require(taps)
        if images_BCHW is None or start is not None:
            raise ContsegError(NO_START)
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        features: dict[str, Tensor] = {}
        queries: list[Tensor] = []
        earlier: list[AuxiliaryOutput] = []
        tokens, first = self.backbone.embed(images_BCHW), self.backbone.depth - self.head.blocks
        for block in range(self.backbone.depth):
            mask = None
            if block == first:
                features["tokens"] = tokens.patches
                selected = self._select(tokens, features)
                tokens = self.backbone.with_queries(tokens, self.head.q.weight if selected is None else selected.detach())
            if block >= first and (self._predicts(block - first) or "queries" in taps):
                normal = self.backbone.normalised(tokens)
                if block == first and selected is not None:  # with gradients, unlike the queries of the blocks
                    normal.values = torch.cat(
                        [self.backbone.model.norm(selected), normal.values[:, selected.shape[1] :]], dim=1
                    )
                queries.append(normal.queries)
                if self._predicts(block - first):
                    masks = self.head.masks(normal.queries, self.head.upscale(normal.patches))
                    mask = self._attention(block - first, masks, normal)
                    if self.training and self.options.readout is None:
                        prediction = self._prediction(normal, masks, size)
                        earlier.append(AuxiliaryOutput(masks=prediction, name=f"block{block - first + 1}"))
            tokens = self.backbone.run(tokens, block, block + 1, mask)
            if block + 1 in self.backbone.cuts:
                features[STAGES[self.backbone.cuts.index(block + 1) - 1]] = tokens.patches
        normal = self.backbone.normalised(tokens)
        features["stage4"], upscaled = normal.patches, self.head.upscale(normal.patches)
        features["head"] = self._cropped(upscaled, size)
        if self.options.readout is None:
            output = SegmenterOutput(masks=self._prediction(normal, self.head.masks(normal.queries, upscaled), size))
        else:
            output = SegmenterOutput(self.classifier(features[self.classifier_tap]))
        if "queries" in taps:
            features["queries"] = torch.stack([*queries, normal.queries], dim=1)
        output.features = {tap: output.logits if tap == "logits" else features[tap] for tap in taps}
        output.auxiliary = earlier
        return output

    def _select(self, tokens: Tokens, features: dict[str, Tensor]) -> Tensor | None:
        """The queries of each image that are selected among its patches, (B, Q, D); None if they are learned.

        Args:
            features: receive the taps `selected` and `selection`.
        """
        if not self._selecting:
            return None
        candidates = self.head.candidates(tokens.values[:, tokens.prefix_count :])
        logits = self.classifier(self.backbone.model.norm(candidates))
        places = best_places(logits, self.head.count)
        selected = candidates.gather(1, places[..., None].expand(-1, -1, candidates.shape[2]))
        features["selection"], features["selected"] = logits, selected
        return selected

    def virtual_logits(self, vectors_BVD: Tensor) -> list[Tensor]:
        """Class logits (B, V, K + 1) of stored queries for every prediction: they pass all of a block but its attention.

        Args:
            vectors_BVD: as of the tap `selected`.
        """
        norm, values = self.backbone.model.norm, vectors_BVD
        found = [self.classifier(norm(values))]
        for block in self.backbone.model.blocks[self.backbone.depth - self.head.blocks :]:
            values = without_attention(block, values)
            found.append(self.classifier(norm(values)))
        return found

    def _predicts(self, block: int) -> bool:
        """Whether the prediction before a block is used: in training, or where it masks the attention of the block."""
        return self.training or self.head.probabilities[block] > EVALUATED

    def _attention(self, block: int, masks_BQHW: Tensor, tokens: Tokens) -> Tensor | None:
        """The attention mask of a block, or None if every query looks everywhere.

        Args:
            masks_BQHW: of the prediction before the block.
        """
        probability = self.head.probabilities[block]
        if probability == 0:
            return None
        if self._softmax:
            masks_BQHW = masks_BQHW.detach().softmax(dim=1) - 0.5
        opened = None
        if self.training and probability < 1:
            opened = self.draw(block, masks_BQHW[:, :, 0, 0]) > probability
        return attention_mask(visible_patches(masks_BQHW, tokens.grid, opened), tokens.values.shape[1])

    def draw(self, block: int, like_BQ: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) that decide which queries look everywhere: those above the probability of a mask.

        Args:
            block: number of the block, 0 is the first that the queries pass.
        """
        return torch.rand(*like_BQ.shape, device=like_BQ.device)

    def _prediction(self, normal: Tokens, masks_BQHW: Tensor, size: tuple[int, int]) -> MaskPrediction:
        """Classes and masks of normalised queries, without what was padded.

        Args:
            size: of the images.
        """
        return MaskPrediction(
            self.classifier(normal.queries),
            self._cropped(masks_BQHW, size),
            softmax=self._softmax,
            background=self.options.background == "constant",
        )

    def _cropped(self, map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = ((side + self.head.stride - 1) // self.head.stride for side in size)
        return map_BCHW[:, :, :height, :width]

    def anneal(self, step: int, update: int, updates: int) -> None:
        """Set how probable masked attention is after some updates, see `EoMTOptions.masked`."""
        if self._masked == "every" or (self._masked == "first" and step == 0):
            self.head.anneal(update, updates)
        else:
            self.head.probabilities = [0.0] * self.head.blocks

    def scores(self, logits_BKHW: Tensor) -> Tensor:
        """Scores of the classes (B, K, H, W): those of `score_map`, whose sum may be above 1."""
        return logits_BKHW.exp() if self.options.readout is None else super().scores(logits_BKHW)

    def features_at(self, images_BCHW: Tensor, points: Sequence[str]) -> dict[str, Tensor]:
        """See `Segmenter.features_at`; `start_points` finds none."""
        raise ContsegError(NO_START)

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Freeze the queries and their mask vectors if a readout has taken their place."""
        if self.options.readout is not None:
            super().freeze_unused(taps)
            unused = self.head.candidates if self._selecting else self.head.q
            unused.requires_grad_(False)
            self.head.mask_head.requires_grad_(False)

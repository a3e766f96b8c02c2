"""Decisions of networks that classify masks: from classes and masks of queries to the class of each pixel.

Two kinds of rules. `einsum` sums over queries: the score of a class at a pixel is the sum of class probability times mask.
An `OwnerRule` gives each pixel to one query, and drops queries of which others own too much: their pixels stay `UNDECIDED`,
which is an answer of its own. `owner_rule` is the one that a network names. Masks of Q queries at full size take Q values
per pixel, so both kinds compute bands of rows.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from contseg.data.classes import UNDECIDED
from contseg.models.heads.transformer_options import EoMTOptions, MaskDecision
from contseg.models.options import NetworkOptions
from contseg.models.output import BACKGROUND, MaskPrediction, with_background
from contseg.models.pixelwise import BAND, ResizedRows
from contseg.precision import precise

MaskScale = Literal["sigmoid", "softmax", "shares"]
"""What mask logits become: each its sigmoid; a softmax over queries (CoMFormer); or they are shares in [0, 1] already."""


@dataclass(frozen=True)
class OwnerRule:
    """How pixels are given to queries. The defaults are those of Mask2Former and EoMT.

    Args:
        score: queries with a lower (or equal) score are dropped.
        overlap: a query is kept if it owns at least this share of its own mask.
        two_sided: and if its mask has at least this share of what it owns (SimCIS, semantic).
        masks: what mask logits become.
        temperature: None: classes by softmax, without those whose best class is no-object. A number: sigmoid classes without
            no-object (SimCIS); the owner is found with softmax(sigmoid / temperature).
        competing: with a temperature, classes are a softmax with no-object; its shares take the place of sigmoids.
    """

    score: float = 0.8
    overlap: float = 0.8
    two_sided: bool = False
    masks: MaskScale = "sigmoid"
    temperature: float | None = None
    competing: bool = False


COMFORMER = OwnerRule(score=0.0, overlap=0.0, masks="softmax")
"""CoMFormer's semantic decision."""
SIMCIS = OwnerRule(score=0.4, two_sided=True, temperature=0.06)
"""SimCIS' semantic decision; the panoptic one has score 0.3 and one side."""

RULES: dict[MaskDecision, OwnerRule | None] = {
    "einsum": None,
    "owner": replace(COMFORMER, masks="sigmoid"),  # queries of a network with `shares: softmax` compete anyway
    "owner-simcis": replace(SIMCIS, competing=True),
}
"""The rule of each `network.head.decision`; None is `einsum`."""


def owner_rule(network: NetworkOptions) -> OwnerRule | None:
    """The rule by which a network gives pixels to queries; None if it decides by scores.

    Example:
        >>> owner_rule(NetworkOptions(backbone="dinov2_reg_tiny", head={"name": "eomt", "decision": "owner"})).overlap
        0.0
    """
    return RULES[network.head.decision] if isinstance(network.head, EoMTOptions) and network.has_owners else None


@dataclass(frozen=True)
class QueryScores:
    """The class of each query, (Q,), its score, and whether the query takes part."""

    classes: Tensor
    scores: Tensor
    kept: Tensor


def query_scores(class_logits_QC: Tensor, rule: OwnerRule) -> QueryScores:
    """The best class of each query.

    Example:
        >>> query_scores(torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0]]), OwnerRule()).kept
        tensor([ True, False])
    """
    logits = precise(class_logits_QC)
    if rule.temperature is None:
        scores, classes = logits.softmax(dim=1).max(dim=1)
        return QueryScores(classes, scores, (classes != logits.shape[1] - 1) & (scores > rule.score))
    chance = logits.softmax(dim=1)[:, :-1] if rule.competing else logits.sigmoid()
    scores, classes = (chance / rule.temperature).softmax(dim=1).max(dim=1)
    return QueryScores(classes, scores, chance.amax(dim=1) > rule.score)


@dataclass(frozen=True)
class Owned:
    """Which query owns each pixel.

    Args:
        owner: (H, W) query; -1 without any, or where pixels are excluded.
        inside: (H, W) bool, whether the owner's mask is at least 0.5 there.
        area: (Q,) pixels that the query owns.
        whole: (Q,) pixels where its mask is at least 0.5, excluded ones too.
        part: (Q,) pixels of both.
    """

    owner: Tensor
    inside: Tensor
    area: Tensor
    whole: Tensor
    part: Tensor

    def region(self, query: int) -> Tensor:
        """(H, W) bool, the pixels that a query owns within its mask."""
        return (self.owner == query) & self.inside


def owned(
    mask_logits_Qhw: Tensor,
    scores_Q: Tensor,
    kept_Q: Tensor,
    size: tuple[int, int],
    masks: MaskScale = "sigmoid",
    excluded_HW: Tensor | None = None,
) -> Owned:
    """Give each pixel to the query with the greatest score times mask.

    Args:
        scores_Q: of the class of each query.
        kept_Q: bool, queries that take part.
        size: (H, W); mask logits are resized to it, in bands of rows.
        excluded_HW: bool, pixels that no query shall own.

    Example:
        >>> masks = torch.tensor([[[9.0, 9.0]], [[-9.0, 8.0]]])
        >>> found = owned(masks, torch.tensor([0.5, 0.9]), torch.tensor([True, True]), (1, 2))
        >>> found.owner.tolist(), found.whole.tolist(), found.part.tolist()
        ([[0, 1]], [2, 1], [1, 1])
    """
    queries, device = kept_Q.nonzero()[:, 0], mask_logits_Qhw.device
    owner = torch.full(size, UNDECIDED, device=device)
    inside = torch.zeros(size, dtype=torch.bool, device=device)
    whole = torch.zeros(len(kept_Q), dtype=torch.int64, device=device)
    if len(queries):
        given = mask_logits_Qhw if masks == "softmax" else mask_logits_Qhw[queries]
        for rows, logits in banded(given, size):
            shares = {"softmax": lambda one: one.softmax(dim=0)[queries], "sigmoid": torch.sigmoid}.get(masks, torch.clone)(
                logits
            )
            best = (scores_Q[queries, None, None] * shares).argmax(dim=0)
            within = shares >= 0.5
            owner[rows], inside[rows] = queries[best], within.gather(0, best[None])[0]
            whole[queries] += within.sum(dim=(1, 2))
        if excluded_HW is not None:
            owner.masked_fill_(excluded_HW, UNDECIDED)
    area, part = (_counts(owner[chosen], len(kept_Q)) for chosen in (owner >= 0, (owner >= 0) & inside))
    return Owned(owner, inside, area, whole, part)


def decided_queries(found: Owned, rule: OwnerRule) -> Tensor:
    """The queries that keep their pixels, (Q,) bool."""
    area, whole = found.area.double(), found.whole.double()
    decided = (found.part > 0) & (area >= rule.overlap * whole)
    return decided & (whole >= rule.overlap * area) if rule.two_sided else decided


def scale_of(prediction: MaskPrediction, rule: OwnerRule) -> MaskScale:
    """What the mask logits of a prediction become: queries of the network may compete."""
    return "softmax" if prediction.softmax else rule.masks


def owner_classes(prediction: MaskPrediction, size: tuple[int, int], rule: OwnerRule) -> Tensor:
    """The class of each pixel, (B, H, W) int64, or `UNDECIDED`; 0 in its place where that is a background without masks.

    Example:
        >>> logits = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
        >>> masks = torch.tensor([[[[9.0, -9.0, -9.0]], [[-9.0, 9.0, -9.0]]]])
        >>> owner_classes(MaskPrediction(logits, masks), (1, 3), OwnerRule())
        tensor([[[ 0,  1, -1]]])
    """
    found = torch.stack([classes for classes, _ in _owner_answers(prediction, size, rule)])
    return found.clamp_min_(0) if prediction.background else found


def owner_scores(prediction: MaskPrediction, size: tuple[int, int], rule: OwnerRule) -> Tensor:
    """Scores (B, K, H, W) of which `owner_classes` is the best: the score of its owner at the owner's class, otherwise 0.

    Several windows and views can be averaged like that. A pixel where every class has 0 is undecided; where background has
    no masks, it has 1/2 in all pixels without an owner.

    Example:
        >>> logits, masks = torch.tensor([[[9.0, 0.0, 0.0]]]), torch.tensor([[[[9.0, -9.0]]]])
        >>> owner_scores(MaskPrediction(logits, masks), (1, 2), OwnerRule()).tolist()
        [[[[0.9997532963752747, 0.0]], [[0.0, 0.0]]]]
    """
    logits = prediction.class_logits
    count = logits.shape[2] - (rule.temperature is None or rule.competing)
    result = precise(logits).new_zeros(len(logits), count, *size)
    for place, (classes, scores) in enumerate(_owner_answers(prediction, size, rule)):
        result[place].scatter_(0, classes.clamp_min(0)[None], scores[None])
        if prediction.background:
            result[place, 0].masked_fill_(classes == UNDECIDED, BACKGROUND)
    return result


def decided(scores_BKHW: Tensor) -> Tensor:
    """The class of each pixel, (B, H, W) int64, from means of `owner_scores`: `UNDECIDED` where every class has 0.

    Example:
        >>> decided(torch.tensor([[[[0.0, 0.2, 0.0]], [[0.7, 0.1, 0.0]]]]))
        tensor([[[ 1,  0, -1]]])
    """
    best, classes = scores_BKHW.max(dim=1)
    return classes.masked_fill(best <= 0, UNDECIDED)


def _owner_answers(prediction: MaskPrediction, size: tuple[int, int], rule: OwnerRule) -> Iterator[tuple[Tensor, Tensor]]:
    """For each image the class of each pixel or `UNDECIDED`, (H, W) int64, and the score of its owner, 0 without one."""
    for class_logits, mask_logits in zip(prediction.class_logits, prediction.mask_logits, strict=True):
        scored = query_scores(class_logits, rule)
        found = owned(mask_logits, scored.scores, scored.kept, size, scale_of(prediction, rule))
        dropped = ~decided_queries(found, rule)
        classes = _painted(found, scored.classes.masked_fill(dropped, UNDECIDED))
        yield classes, _painted(found, scored.scores.masked_fill(dropped, UNDECIDED)).clamp_min(0)


@dataclass(frozen=True)
class Segments:
    """Segments of one image.

    Args:
        ids: (H, W) int64, from 0, or `UNDECIDED`.
        classes: the class of each segment.
    """

    ids: Tensor
    classes: tuple[int, ...]

    def class_map(self) -> Tensor:
        """(H, W) int64 class of each pixel, or `UNDECIDED`."""
        table = torch.tensor([*self.classes, UNDECIDED], device=self.ids.device)
        return table[self.ids]


def panoptic(
    prediction: MaskPrediction,
    size: tuple[int, int],
    things: Collection[int],
    rule: OwnerRule | None = None,
    void: Collection[int] = (),
) -> list[Segments]:
    """Segments of each image: one per query of a thing, one per class of stuff; in the order of queries.

    Args:
        things: classes whose queries are instances.
        rule: default: that of Mask2Former and EoMT.
        void: classes that are no segment, such as a background that is not annotated; their pixels stay undecided.

    Example:
        >>> logits, masks = torch.tensor([[[9.0, 0.0], [9.0, 0.0]]]), torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
        >>> [panoptic(MaskPrediction(logits, masks), (1, 2), things)[0].ids.tolist() for things in ({0}, set())]
        [[[0, 1]], [[0, 0]]]
    """
    rule = rule or OwnerRule()
    each = []
    for class_logits, mask_logits in zip(prediction.class_logits, prediction.mask_logits, strict=True):
        scored = query_scores(class_logits, rule)
        found = owned(mask_logits, scored.scores, scored.kept, size, scale_of(prediction, rule))
        classes: list[int] = []
        table = torch.full_like(scored.classes, UNDECIDED)
        of_query = scored.classes.tolist()
        for query in decided_queries(found, rule).nonzero()[:, 0].tolist():
            one = of_query[query]
            if one in void:
                continue
            if one in things or one not in classes:
                classes.append(one)
                table[query] = len(classes) - 1
            else:
                table[query] = classes.index(one)
        each.append(Segments(_painted(found, table), tuple(classes)))
    return each


def semantic_bands(prediction: MaskPrediction, size: tuple[int, int]) -> Iterator[tuple[int, slice, Tensor]]:
    """Scores of rule `einsum`: sum over queries of class probability, no-object left out, times the sigmoid of the mask.

    No probability: scores of a pixel do not sum to 1.

    Args:
        size: (H, W); mask logits are resized to it.

    Yields:
        position of the image, rows, and scores (K, rows, W), from top to bottom, image by image.

    Example:
        >>> prediction = MaskPrediction(torch.zeros(1, 4, 2), torch.full((1, 4, 2, 2), 50.0))
        >>> [(image, rows, scores)] = semantic_bands(prediction, (2, 2))
        >>> scores
        tensor([[[2., 2.],
                 [2., 2.]]])
    """
    for image, (class_logits, mask_logits) in enumerate(zip(prediction.class_logits, prediction.mask_logits, strict=True)):
        chances = precise(class_logits).softmax(dim=1)[:, :-1]
        for rows, masks in banded(mask_logits, size, channels=chances.shape[1]):
            maps = masks.to(chances)
            shares = maps.softmax(dim=0) if prediction.softmax else maps.sigmoid()
            yield image, rows, with_background(torch.einsum("qk,qhw->khw", chances, shares), prediction.background)


def semantic_classes(prediction: MaskPrediction, size: tuple[int, int]) -> Tensor:
    """The class of each pixel by rule `einsum`, (B, H, W) int64."""
    result = torch.empty(len(prediction.class_logits), *size, dtype=torch.int64, device=prediction.class_logits.device)
    for image, rows, scores in semantic_bands(prediction, size):
        result[image, rows] = scores.argmax(dim=0)
    return result


def banded(map_Chw: Tensor, size: tuple[int, int], channels: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """Bands of rows of a map that is resized to (H, W): rows, and (C, rows, W).

    Args:
        channels: of what is computed from a band, where these are more than the map's.
    """
    values = max(len(map_Chw), channels) * size[1]
    step = max(1, BAND.get(map_Chw.device.type, BAND["cuda"]) // max(1, values))
    precisely = precise(map_Chw)
    resized = None if tuple(map_Chw.shape[1:]) == tuple(size) else ResizedRows.of(precisely, size)
    for top in range(0, size[0], step):
        rows = slice(top, min(top + step, size[0]))
        yield rows, precisely[:, rows] if resized is None else resized.cut(rows)


def _counts(queries_N: Tensor, count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64, device=queries_N.device).scatter_add_(
        0, queries_N, torch.ones_like(queries_N)
    )


def _painted(found: Owned, table_Q: Tensor) -> Tensor:
    """The value of each pixel's owner within its mask, (H, W); `UNDECIDED` elsewhere."""
    values = torch.cat([table_Q, table_Q.new_full((1,), UNDECIDED)])[found.owner]  # owner -1 is the last entry
    return values.masked_fill(~found.inside, UNDECIDED)

"""Masks of old classes that the teacher finds in an image: targets next to those that are annotated."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.losses.masks.targets import MaskTargets
from contseg.models.mask_decision import MaskScale, Owned, QueryScores, owned
from contseg.precision import precise


@dataclass(frozen=True)
class PseudoRule:
    """Which queries of the teacher become masks. A pixel of an annotated mask never belongs to one.

    Args:
        share: a query is kept if more than this share of its own mask remains: of the pixels that it owns, or with `within`
            of those that are also in its mask.
        within: see `share`.
        masks: what the teacher's mask logits become.
        by_score: masks in descending order of score; otherwise in the order of queries.
        merged: the masks of one class are one mask, in the order of classes.
    """

    share: float = 0.8
    within: bool = True
    masks: MaskScale = "sigmoid"
    by_score: bool = True
    merged: bool = False


COMFORMER = PseudoRule(share=0.5, within=False, masks="softmax", by_score=False)
"""Owned pixels are compared with the mask, and its softmax is over queries; BalConpas has the defaults."""
SIMCIS_SEMANTIC = PseudoRule(merged=True)
"""The panoptic rule of SimCIS is that of BalConpas."""


def sigmoid_scores(
    class_logits_QC: Tensor, old: int, threshold: float = 0.0, temperature: float | None = None
) -> QueryScores:
    """The class of each query of SimCIS' teacher, which has a sigmoid output for every class, also for future ones.

    Args:
        old: number of old classes K'. A query whose best output is exactly K' is left out, as in the released code.
        threshold: the best sigmoid must be greater; 0 in semantic segmentation, 0.35 in panoptic.
        temperature: None: the score is the best sigmoid; panoptic: of softmax(sigmoid / 0.06).

    Example:
        >>> found = sigmoid_scores(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), old=2)
        >>> found.classes.tolist(), found.kept.tolist()
        ([0, 2], [True, False])
    """
    chance = precise(class_logits_QC).sigmoid()
    best, classes = chance.max(dim=1)
    scores = best if temperature is None else (chance / temperature).softmax(dim=1).amax(dim=1)
    return QueryScores(classes, scores, (best > threshold) & (classes != old))


@torch.no_grad()
def pseudo_masks(
    scored: QueryScores, mask_logits_Qhw: Tensor, size: tuple[int, int], rule: PseudoRule, truth: MaskTargets | None = None
) -> MaskTargets:
    """The masks that a teacher finds in one image.

    Args:
        scored: class and score of each query, as of `query_scores` or `sigmoid_scores`.
        mask_logits_Qhw: of the teacher, resized to `size` (H, W).
        truth: annotated masks, whose pixels belong to no other mask; None: there are none.

    Example:
        >>> scored = QueryScores(torch.tensor([7, 3]), torch.tensor([0.9, 0.8]), torch.tensor([True, True]))
        >>> found = pseudo_masks(scored, torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]]), (1, 2), PseudoRule())
        >>> found.classes.tolist(), found.masks.tolist()
        ([7, 3], [[[True, False]], [[False, True]]])
    """
    excluded = truth.covered() if truth is not None and len(truth.classes) else None
    order = scored.scores.argsort(descending=True, stable=True) if rule.by_score else torch.arange(len(scored.scores))
    order = order.to(mask_logits_Qhw.device)
    masks = mask_logits_Qhw if rule.by_score is False else mask_logits_Qhw[order]
    classes, scores, kept = scored.classes[order], scored.scores[order], scored.kept[order]
    found = owned(masks, scores, kept, size, rule.masks, excluded)
    remaining = (found.part if rule.within else found.area).double()
    chosen = (found.part > 0) & (remaining > rule.share * found.whole)
    return _merged(found, classes, chosen) if rule.merged else _separate(found, classes, chosen)


def _separate(found: Owned, classes_Q: Tensor, chosen_Q: Tensor) -> MaskTargets:
    queries = chosen_Q.nonzero()[:, 0]
    return MaskTargets(classes_Q[queries], (found.owner == queries[:, None, None]) & found.inside)


def _merged(found: Owned, classes_Q: Tensor, chosen_Q: Tensor) -> MaskTargets:
    classes = classes_Q[chosen_Q].unique()
    marks = torch.where(chosen_Q, classes_Q, -1)
    of_pixel = torch.cat([marks, marks.new_full((1,), -1)])[found.owner].masked_fill(~found.inside, -1)
    return MaskTargets(classes, of_pixel == classes[:, None, None])

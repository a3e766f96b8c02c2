"""Targets with pseudo labels: what a teacher of masks finds where an image has no annotated mask."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.masks.targets import MaskTargets
from contseg.methods.mask_pseudo_labels import PseudoRule, pseudo_masks
from contseg.methods.mask_supervision import targets_of
from contseg.models.mask_decision import OwnerRule, QueryScores, query_scores
from contseg.models.output import MaskPrediction
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import with_targets

Score = Callable[[Tensor], QueryScores]


def best_of_softmax(class_logits_QC: Tensor) -> QueryScores:
    """Every query whose best class is not no-object."""
    return query_scores(class_logits_QC, OwnerRule(score=0.0))


def incomplete(batch: Batch, old_count: int) -> Tensor:
    """(B,) bool, images in which a class of this step is not annotated, such as exemplars of a memory."""
    return ~batch.annotated[:, old_count:].all(dim=1)


def with_leaked(batch: Batch) -> Batch:
    """The batch with its targets, among them the class of the next step that `scenario.variant: released` annotates.

    The class of such a target is the number of outputs, which is no-object in the logits of queries.
    """
    return with_targets(batch, leaked=True)


def leaking(batch: Batch) -> Tensor:
    """(B,) bool, images that show a class of the next step, see `with_leaked`."""
    return (batch.labels == batch.annotated.shape[1]).flatten(1).any(dim=1)


@torch.no_grad()
def with_pseudo_masks(
    batch: Batch,
    teacher: MaskPrediction,
    rule: PseudoRule,
    first: bool = False,
    spared_B: Tensor | None = None,
    score: Score = best_of_softmax,
) -> Batch:
    """The batch whose targets include the teacher's masks. Annotated masks are never changed.

    A mask of a class that is annotated in its image is left out: its absence there is known.

    Args:
        rule: which masks; what mask logits become is what the teacher does.
        first: pseudo labels before the annotated masks (BalConpas, SimCIS), or after them (CoMFormer).
        spared_B: bool, images that get none.
        score: class and score of each query from its logits.
    """
    scale = "softmax" if teacher.softmax else rule.masks
    rule = replace(rule, masks=scale)
    spared = [False] * len(batch.names) if spared_B is None else spared_B.tolist()
    found: list[tuple[Tensor, Tensor]] = []
    for place, truth in enumerate(targets_of(batch)):
        if spared[place]:
            found.append((truth.classes, truth.masks))
            continue
        scored = score(teacher.class_logits[place])
        more = pseudo_masks(scored, teacher.mask_logits[place], batch.size, rule, truth)
        hidden = ~batch.annotated[place, more.classes]
        more = MaskTargets(more.classes[hidden], more.masks[hidden])
        both = more.followed_by(truth) if first else truth.followed_by(more)
        found.append((both.classes, both.masks))
    return replace(batch, targets=tuple(found))


def pseudo_counts(batch: Batch) -> list[int]:
    """Number of targets of each image that are not annotated there; one of the next step is."""
    each = zip(targets_of(batch), _known(batch), strict=True)
    return torch.stack([(~annotated[one.classes]).sum() for one, annotated in each]).tolist()


def _known(batch: Batch) -> Tensor:
    """(B, K + 1) bool, classes that are annotated in each image; the last column is the class of the next step."""
    return functional.pad(batch.annotated, (0, 1), value=True)


@torch.no_grad()
def painted(batch: Batch) -> Tensor:
    """Labels (B, H, W) in which pixels of pseudo labels have their class, for counts and pictures; itself without targets.

    Nothing is learned from it, and the device is not waited for.
    """
    if batch.targets is None:
        return batch.labels
    labels, known = batch.labels.clone(), _known(batch)
    for place, one in enumerate(targets_of(batch)):
        if len(one.classes):
            found = one.masks & ~known[place, one.classes][:, None, None]
            classes = one.classes[found.to(torch.uint8).argmax(dim=0)]  # masks of a teacher do not overlap
            labels[place] = torch.where(found.any(dim=0), classes.to(labels.dtype), labels[place])
    return labels

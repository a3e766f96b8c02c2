"""SimCIS: sigmoid classes without no-object, boxes, and selection of queries that stays consistent between steps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.masks.boxes import corners, generalised_iou
from contseg.losses.masks.costs import WEIGHTS, box_costs, focal_class_cost
from contseg.losses.masks.criterion import mask_sums
from contseg.losses.masks.matching import Matches
from contseg.losses.masks.targets import MaskTargets
from contseg.precision import precisely

ALPHA, GAMMA = 0.25, 2.0
"""Constants of the focal loss and of the cost of classes."""


@precisely
def sigmoid_focal_loss(
    class_logits_BQK: Tensor, classes_BQ: Tensor, number: Tensor | float, alpha: float = ALPHA, gamma: float = GAMMA
) -> Tensor:
    """Focal loss of independent outputs, sum over queries and outputs / N.

    Args:
        classes_BQ: the class of each query; K, or any larger number, for none.
        number: N, as of `mask_losses`; virtual queries do not count.

    Example:
        >>> sigmoid_focal_loss(torch.zeros(1, 2, 1), torch.tensor([[0, 1]]), 1)
        tensor(0.1733)
    """
    outputs = torch.arange(class_logits_BQK.shape[2], device=classes_BQ.device)
    hit = classes_BQ[..., None] == outputs
    signed = torch.where(hit, class_logits_BQK, -class_logits_BQK)
    weights = torch.where(hit, alpha, 1 - alpha).to(signed)
    return (weights * signed.neg().sigmoid() ** gamma * functional.softplus(-signed)).sum() / number


@precisely
def box_losses(boxes_M4: Tensor, targets_M4: Tensor, number: Tensor | float) -> dict[str, Tensor]:
    """The terms `box` (L1) and `giou` (1 - generalised IoU) of matched pairs, sum / N.

    Args:
        boxes_M4, targets_M4: centre x, y, width, height in [0, 1].

    Example:
        >>> box_losses(torch.tensor([[0.25, 0.25, 0.5, 0.5]]), torch.tensor([[0.75, 0.75, 0.5, 0.5]]), 1)
        {'box': tensor(1.), 'giou': tensor(1.5000)}
    """
    distance = (boxes_M4 - targets_M4).abs().sum()
    overlap = generalised_iou(corners(boxes_M4), corners(targets_M4))
    return {"box": distance / number, "giou": (1 - overlap).sum() / number}


@torch.no_grad()
def selection_matching_costs(
    class_logits_BQK: Tensor,
    mask_logits_BQhw: Tensor,
    boxes_BQ4: Tensor,
    targets: Sequence[MaskTargets],
    target_boxes: Sequence[Tensor],
    points_BP2: Tensor,
) -> list[Tensor]:
    """Costs of all queries for the targets of each image, (Q, T) each: 2 class + 5 mask + 5 dice + 5 box - 2 giou.

    Args:
        target_boxes: (T, 4) of each image, see `boxes_of`.
        points_BP2: where masks are compared, (x, y) in [0, 1].
    """
    found = []
    each = zip(class_logits_BQK, mask_logits_BQhw, boxes_BQ4, targets, target_boxes, points_BP2, strict=True)
    for logits, maps, boxes, one, of_targets, points in each:
        sums = mask_sums(maps, one, points)
        distance, overlap = box_costs(boxes, of_targets.to(boxes))
        parts = {"class": focal_class_cost(logits, one.classes, ALPHA, GAMMA), "mask": sums.cross_entropy(),
                 "dice": 1 - sums.dice(), "box": distance, "giou": overlap}  # fmt: skip
        found.append(torch.stack([WEIGHTS[name] * part for name, part in parts.items()]).sum(dim=0))
    return found


def virtual_targets(classes_BQ: Tensor, virtual_BV: Tensor) -> Tensor:
    """The classes of queries followed by those of virtual queries, (B, Q + V)."""
    return torch.cat([classes_BQ, virtual_BV], dim=1)


@precisely
def selection_divergence(
    class_logits_BQK: Tensor, old_logits_BQK: Tensor, temperature: float = 1.0, classes: slice = slice(None)
) -> Tensor:
    """KL(softmax(old / T) || softmax(new / T)) at the positions that the old model selects: sum over all / B.

    The paper divides by the number of positions too; the released code does not.

    Args:
        class_logits_BQK: of the new model at the old model's positions.
        classes: outputs to compare; both are normalised over these.

    Example:
        >>> selection_divergence(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[50.0, 0.0]]]))
        tensor(0.6931)
    """
    log_student = (class_logits_BQK[..., classes] / temperature).log_softmax(dim=-1)
    log_teacher = (old_logits_BQK.detach()[..., classes] / temperature).log_softmax(dim=-1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum() / len(class_logits_BQK)


def matched_boxes(boxes_BQ4: Tensor, target_boxes: Sequence[Tensor], matches: Matches) -> tuple[Tensor, Tensor]:
    """Boxes of matched queries and of their targets, (M, 4) each."""
    return matches.of(boxes_BQ4), torch.cat(list(target_boxes))[matches.rows].to(boxes_BQ4)

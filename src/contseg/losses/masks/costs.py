"""Costs of a query for a target: what the assignment of queries to targets minimises. No gradients.

All are (Q, T) for Q queries and T targets of one image. Masks are compared at P points: M (Q, P) logits, Y (T, P) targets.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.masks.boxes import corners, generalised_iou
from contseg.precision import precisely

WEIGHTS: Mapping[str, float] = {"class": 2.0, "mask": 5.0, "dice": 5.0, "box": 5.0, "giou": 2.0}
"""Weights of costs and of losses of the same name (Mask2Former; boxes: SimCIS)."""


@precisely
def class_cost(class_logits_QC: Tensor, classes_T: Tensor) -> Tensor:
    """-p, the probability of the target's class; the softmax includes no-object.

    Example:
        >>> class_cost(torch.zeros(1, 4), torch.tensor([0, 2]))
        tensor([[-0.2500, -0.2500]])
    """
    return -class_logits_QC.softmax(dim=1)[:, classes_T]


@precisely
def focal_class_cost(class_logits_QC: Tensor, classes_T: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Of sigmoid classes: alpha (1-p)^gamma (-log p) - (1-alpha) p^gamma (-log(1-p)), with 1e-8 in the logarithms.

    Example:
        >>> focal_class_cost(torch.zeros(1, 3), torch.tensor([1]))
        tensor([[-0.0866]])
    """
    probability = class_logits_QC[:, classes_T].sigmoid()
    positive = alpha * (1 - probability) ** gamma * -(probability + 1e-8).log()
    negative = (1 - alpha) * probability**gamma * -(1 - probability + 1e-8).log()
    return positive - negative


@precisely
def mask_costs(logits_QP: Tensor, targets_TP: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, mean over points, and dice, 1 - (2 s Y' + 1) / (sum s + sum Y + 1) with s = sigmoid(M).

    Example:
        >>> cross_entropy, dice = mask_costs(torch.tensor([[9.0, -9.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> cross_entropy.round(), dice.round(decimals=2)
        (tensor([[0., 9.]]), tensor([[0.0000, 0.6700]]))
    """
    share = logits_QP.sigmoid()
    products = torch.cat([logits_QP, share]) @ targets_TP.T
    hits, both = products.tensor_split(2)
    # softplus(-M) Y + softplus(M) (1 - Y) = softplus(M) - M Y
    cross_entropy = (functional.softplus(logits_QP).sum(dim=1, keepdim=True) - hits) / logits_QP.shape[1]
    return cross_entropy, 1 - _dice(both, share.sum(dim=1), targets_TP.sum(dim=1))


@precisely
def harmonic_cost(
    class_logits_QC: Tensor, shares_QP: Tensor, classes_T: Tensor, targets_TP: Tensor, weight: float = 2.0
) -> Tensor:
    """CoMFormer's cost, -2 a d / (a + d): the harmonic mean of the class's probability a and the dice d of the masks.

    It is not a number where both are 0.

    Args:
        shares_QP: softmax over queries of the mask logits, at the points.

    Example:
        >>> harmonic_cost(torch.zeros(1, 2), torch.ones(1, 4), torch.tensor([0]), torch.ones(1, 4))
        tensor([[-0.6667]])
    """
    chance = class_logits_QC.softmax(dim=1)[:, classes_T]
    dice = _dice(shares_QP @ targets_TP.T, shares_QP.sum(dim=1), targets_TP.sum(dim=1))
    return -weight * chance * dice / (chance + dice)


@precisely
def box_costs(boxes_Q4: Tensor, targets_T4: Tensor) -> tuple[Tensor, Tensor]:
    """L1 distance of boxes (centre x, y, width, height, in [0, 1]), and minus their generalised IoU.

    Example:
        >>> distance, giou = box_costs(torch.tensor([[0.5, 0.5, 1, 1]]), torch.tensor([[0.5, 0.5, 1, 1], [0.25, 0.5, 0.5, 1]]))
        >>> distance, giou
        (tensor([[0.0000, 0.7500]]), tensor([[-1.0000, -0.5000]]))
    """
    return torch.cdist(boxes_Q4, targets_T4, p=1), -generalised_iou(corners(boxes_Q4)[:, None], corners(targets_T4)[None])


def _dice(both_QT: Tensor, one_Q: Tensor, other_T: Tensor) -> Tensor:
    return (2 * both_QT + 1) / (one_Q[:, None] + other_T + 1)

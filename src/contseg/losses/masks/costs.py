"""Costs of a query for a target: what the assignment of queries to targets minimises. No gradients.

All are (Q, T) for Q queries and T targets of one image. Masks are compared at P points: M (P, Q) logits, Y (T, P) targets.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

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


class MaskSums:
    """Sums over points for the costs of masks, added up in pieces.

    Args:
        softmax: the values of maps are shares of a softmax over queries (CoMFormer), not logits.

    Example:
        >>> sums = MaskSums()
        >>> sums.add(torch.tensor([[9.0], [-9.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> sums.cross_entropy().round(), sums.dice().round(decimals=2)
        (tensor([[0., 9.]]), tensor([[1.0000, 0.3300]]))
    """

    def __init__(self, softmax: bool = False):
        self.softmax, self.points = softmax, 0
        self.hits: Tensor | float = 0.0
        self.both: Tensor | float = 0.0
        self.negative: Tensor | float = 0.0
        self.shares: Tensor | float = 0.0
        self.truth: Tensor | float = 0.0

    def add(self, values_PQ: Tensor, targets_TP: Tensor) -> None:
        """Add some points."""
        targets = targets_TP.to(values_PQ)
        self.points += len(values_PQ)
        if not self.softmax:
            self.hits = self.hits + targets @ values_PQ
            self.negative = self.negative + _softplus_sums(values_PQ)
        shares = values_PQ if self.softmax else values_PQ.sigmoid()
        self.both = self.both + targets @ shares
        self.shares, self.truth = self.shares + shares.sum(dim=0), self.truth + targets.sum(dim=1)

    def cross_entropy(self) -> Tensor:
        """Binary cross-entropy, mean over points: softplus(-M) Y + softplus(M) (1 - Y) = softplus(M) - M Y."""
        assert isinstance(self.negative, Tensor)
        return (self.negative[:, None] - torch.as_tensor(self.hits).T) / self.points

    def dice(self) -> Tensor:
        """(2 s Y' + 1) / (sum s + sum Y + 1), with s = sigmoid(M) or the shares."""
        assert isinstance(self.shares, Tensor)
        return (2 * torch.as_tensor(self.both).T + 1) / (self.shares[:, None] + self.truth + 1)


def _softplus_sums(logits_PQ: Tensor) -> Tensor:
    """Sums of softplus over points, (Q,).

    softplus(m) = max(m, 0) - log(sigmoid(|m|)). A logarithm takes ten times as long as a sigmoid, so it is taken of products
    of 16 sigmoids: these are at least 1/2, and no product underflows.
    """
    certain = logits_PQ.abs().sigmoid()
    whole = len(certain) // 16 * 16
    logarithms = certain[:whole].unflatten(0, (16, -1)).prod(dim=0).log().sum(dim=0) + certain[whole:].log().sum(dim=0)
    return logits_PQ.clamp_min(0).sum(dim=0) - logarithms


@precisely
def harmonic_cost(class_logits_QC: Tensor, classes_T: Tensor, dice_QT: Tensor, weight: float = 2.0) -> Tensor:
    """CoMFormer's cost, -2 a d / (a + d): the harmonic mean of the class's probability a and the dice d of the masks.

    It is not a number where both are 0.

    Args:
        dice_QT: see `MaskSums`.

    Example:
        >>> harmonic_cost(torch.zeros(1, 2), torch.tensor([0]), torch.ones(1, 1))
        tensor([[-0.6667]])
    """
    chance = class_logits_QC.softmax(dim=1)[:, classes_T]
    return -weight * chance * dice_QT / (chance + dice_QT)


@precisely
def box_costs(boxes_Q4: Tensor, targets_T4: Tensor) -> tuple[Tensor, Tensor]:
    """L1 distance of boxes (centre x, y, width, height, in [0, 1]), and minus their generalised IoU.

    Example:
        >>> boxes = torch.tensor([[0.5, 0.5, 1, 1], [0.25, 0.5, 0.5, 1]])
        >>> distance, giou = box_costs(boxes[:1], boxes)
        >>> distance, giou
        (tensor([[0.0000, 0.7500]]), tensor([[-1.0000, -0.5000]]))
    """
    return torch.cdist(boxes_Q4, targets_T4, p=1), -generalised_iou(corners(boxes_Q4)[:, None], corners(targets_T4)[None])

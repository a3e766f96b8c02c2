"""ECLIPSE: class logits of groups of queries that were learned in different steps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precisely

CLOSED = -10.0
"""Logit of the classes of other steps."""
EDGE = 1e-3
"""Probabilities are limited to [EDGE, 1 - EDGE] before their logit."""


@precisely
def manipulated_logits(
    class_logits_BQC: Tensor, queries: Sequence[int], classes: Sequence[int], deltas: Sequence[float]
) -> Tensor:
    """Logits (B, Q, K + 1) in which a group of queries only has the classes of its step, and a no-object of its own.

    Args:
        class_logits_BQC: no-object last; all outputs are sigmoids.
        queries: the first query of each group, and their number.
        classes: of each step.
        deltas: of each group. Above 0: no-object becomes delta times the sum of the probabilities of other steps' classes,
            at most delta; below 0: |delta| times its own probability; 0: unchanged.

    Example:
        >>> manipulated_logits(torch.zeros(1, 2, 3), [0, 1, 2], [1, 1], [0.0, 0.5])
        tensor([[[  0.0000, -10.0000,   0.0000],
                 [-10.0000,   0.0000,  -1.0986]]])
    """
    groups, first = [], 0
    for start, end, width, delta in zip(queries[:-1], queries[1:], classes, deltas, strict=True):
        logits = class_logits_BQC[:, start:end]
        own = torch.zeros(logits.shape[2] - 1, dtype=torch.bool, device=logits.device)
        own[first : first + width] = True
        none = logits[..., -1:]
        if delta > 0:
            others = logits[..., :-1].sigmoid().masked_fill(own, 0).sum(dim=-1, keepdim=True)
            none = _logit(delta * others.clamp(0, 1))
        elif delta < 0:
            none = _logit(-delta * none.sigmoid())
        groups.append(torch.cat([logits[..., :-1].masked_fill(~own, CLOSED), none], dim=-1))
        first += width
    return torch.cat(groups, dim=1)


@precisely
def scaled_focal_loss(class_logits_BQC: Tensor, classes_BQ: Tensor, alpha: float = 5.0, gamma: float = 1.0) -> Tensor:
    """Focal loss of sigmoid outputs, no-object included: alpha (1 - p_t)^gamma BCE, 50 times the mean over all.

    Args:
        classes_BQ: the output of each query; no-object is the last one.

    Example:
        >>> scaled_focal_loss(torch.zeros(1, 1, 2), torch.tensor([[1]]))
        tensor(86.6434)
    """
    outputs = torch.arange(class_logits_BQC.shape[2], device=classes_BQ.device)
    signed = torch.where(classes_BQ[..., None] == outputs, class_logits_BQC, -class_logits_BQC)
    return 50 * (alpha * signed.neg().sigmoid() ** gamma * functional.softplus(-signed)).mean()


def _logit(share: Tensor) -> Tensor:
    return share.clamp(EDGE, 1 - EDGE).logit()

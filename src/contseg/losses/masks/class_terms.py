"""Losses on the classes of queries for continual learning: focal, distillation with no-object, and unbiased cross-entropy.

Logits are (B, Q, K + 1), no-object last; those of the old model (B, Q, K' + 1) with K' <= K. Query i of the old model is
compared with query i of the new one.
"""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.masks.criterion import NO_OBJECT
from contseg.precision import precisely
from contseg.ranks import ALONE, Ranks

FOCAL = (5.0, 1.0)
"""CoMFormer's alpha and gamma."""


def _focal(nll: Tensor, alpha: float, gamma: float) -> Tensor:
    return (alpha * (1 - (-nll).exp()) ** gamma * nll).mean()


@precisely
def focal_loss(class_logits_BQC: Tensor, classes_BQ: Tensor, alpha: float = FOCAL[0], gamma: float = FOCAL[1]) -> Tensor:
    """alpha (1 - e^-nll)^gamma nll, mean over all queries; no weight for no-object.

    Example:
        >>> focal_loss(torch.zeros(1, 2, 4), torch.tensor([[3, 0]]))
        tensor(5.1986)
    """
    nll = functional.cross_entropy(class_logits_BQC.transpose(1, 2), classes_BQ, reduction="none")
    return _focal(nll, alpha, gamma)


@precisely
def with_hidden(class_logits_BQC: Tensor, old: int) -> Tensor:
    """Log-probabilities of the old classes and of no-object, (B, Q, old + 1), where new classes count as no-object.

    Example:
        >>> with_hidden(torch.zeros(1, 1, 4), 1).exp()
        tensor([[[0.2500, 0.7500]]])
    """
    hidden = class_logits_BQC[..., old:].logsumexp(dim=-1, keepdim=True)
    return torch.cat([class_logits_BQC[..., :old], hidden], dim=-1) - class_logits_BQC.logsumexp(dim=-1, keepdim=True)


@precisely
def adaptive_distillation(
    class_logits_BQC: Tensor,
    old_logits_BQC: Tensor,
    unbiased: bool = True,
    gamma: float | None = 2.0,
    alpha: float = 1.0,
    ranks: Ranks = ALONE,
) -> Tensor:
    """CoMFormer's distillation: KL(old || new) of the classes of each query, weighted by (1 - q_none)^gamma.

    No gradient reaches the old model.

    Args:
        unbiased: new classes count as no-object; otherwise they are left out, and the student is normalised over the old
            classes and no-object.
        gamma: of the weights; None: the plain mean over queries.
        alpha: the old logits are multiplied by it.
        ranks: weights are summed over all of them.

    Example:
        >>> adaptive_distillation(torch.zeros(1, 1, 4), torch.zeros(1, 1, 2))
        tensor(0.1438)
    """
    count = old_logits_BQC.shape[-1] - 1
    log_teacher = (alpha * old_logits_BQC.detach()).log_softmax(dim=-1)
    log_student = with_hidden(class_logits_BQC, count) if unbiased else _kept(class_logits_BQC, count).log_softmax(dim=-1)
    return _divergence(log_student, log_teacher, gamma, ranks)


@precisely
def plain_distillation(class_logits_BQC: Tensor, old_logits_BQC: Tensor) -> Tensor:
    """KL(old || new), mean over queries; the student is normalised over all classes, and new ones are then left out.

    Example:
        >>> plain_distillation(torch.zeros(1, 1, 3), torch.zeros(1, 1, 2))
        tensor(0.4055)
    """
    count, log_student = old_logits_BQC.shape[-1] - 1, class_logits_BQC.log_softmax(dim=-1)
    return _divergence(_kept(log_student, count), old_logits_BQC.detach().log_softmax(dim=-1), None)


def _kept(values_BQC: Tensor, old: int) -> Tensor:
    """Those of the old classes and of no-object."""
    return torch.cat([values_BQC[..., :old], values_BQC[..., -1:]], dim=-1)


def _divergence(log_student: Tensor, log_teacher: Tensor, gamma: float | None, ranks: Ranks = ALONE) -> Tensor:
    teacher = log_teacher.exp()
    each = (teacher * (log_teacher - log_student)).sum(dim=-1)
    if gamma is None:
        return each.mean()
    weights = (1 - teacher[..., -1]) ** gamma
    total = ranks.sum(weights.sum()) / ranks.count
    return (weights * each).sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


@precisely
def squared_distance(class_logits_BQC: Tensor, old_logits_BQC: Tensor) -> Tensor:
    """Squared differences of the probabilities, normalised over old classes and no-object: sum over them, mean over queries.

    Example:
        >>> squared_distance(torch.tensor([[[0.0, 5.0, 50.0]]]), torch.tensor([[[50.0, 0.0]]]))
        tensor(2.)
    """
    count = old_logits_BQC.shape[-1] - 1
    difference = _kept(class_logits_BQC, count).softmax(dim=-1) - old_logits_BQC.detach().softmax(dim=-1)
    return difference.square().sum(dim=-1).mean()


@precisely
def unbiased_class_loss(class_logits_BQC: Tensor, classes_BQ: Tensor, old: int, no_object: float = NO_OBJECT) -> Tensor:
    """Cross-entropy in which no-object may be any old class too, sum of w nll / sum of w as in `class_loss`.

    Args:
        old: K', the number of old classes, which come first.

    Example:
        >>> unbiased_class_loss(torch.zeros(1, 1, 4), torch.tensor([[3]]), old=2)
        tensor(0.2877)
    """
    weights = class_logits_BQC.new_ones(class_logits_BQC.shape[-1])
    weights[-1] = no_object
    return functional.nll_loss(_hiding_old(class_logits_BQC, old).transpose(1, 2), classes_BQ, weights)


@precisely
def focal_unbiased_loss(
    class_logits_BQC: Tensor, classes_BQ: Tensor, old: int, alpha: float = FOCAL[0], gamma: float = FOCAL[1]
) -> Tensor:
    """The focal form of `unbiased_class_loss`, mean over all queries.

    Example:
        >>> focal_unbiased_loss(torch.zeros(1, 1, 4), torch.tensor([[3]]), old=2)
        tensor(0.3596)
    """
    nll = functional.nll_loss(_hiding_old(class_logits_BQC, old).transpose(1, 2), classes_BQ, reduction="none")
    return _focal(nll, alpha, gamma)


def _hiding_old(class_logits_BQC: Tensor, old: int) -> Tensor:
    """Log-probabilities (B, Q, K + 1); no-object has that of the old classes too."""
    hidden = _kept(class_logits_BQC, old).logsumexp(dim=-1, keepdim=True)
    return torch.cat([class_logits_BQC[..., :-1], hidden], dim=-1) - class_logits_BQC.logsumexp(dim=-1, keepdim=True)


@precisely
def mask_distillation(mask_logits_BQHW: Tensor, old_logits_BQHW: Tensor, softmax: bool = False) -> Tensor:
    """Distillation of masks, an option that no published row of CoMFormer uses.

    Args:
        softmax: KL(old || new) of the softmax over queries, mean over pixels; otherwise binary cross-entropy towards the
            old sigmoid, mean over all values.

    Example:
        >>> mask_distillation(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
        tensor(0.6931)
    """
    old = old_logits_BQHW.detach()
    if not softmax:
        return functional.binary_cross_entropy_with_logits(mask_logits_BQHW, old.sigmoid())
    log_teacher = old.log_softmax(dim=1)
    return (log_teacher.exp() * (log_teacher - mask_logits_BQHW.log_softmax(dim=1))).sum(dim=1).mean()

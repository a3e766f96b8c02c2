"""Contrast between pixels, weighted by the teacher's certainty (UCD), in blocks: memory is linear in pixels."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precise

BLOCK = 1 << 22
"""Similarities that are computed at once."""


@dataclass(frozen=True)
class ContrastSet:
    """Positions that anchors are compared with; nothing here has a gradient.

    Args:
        vectors: (M, D), unit vectors.
        labels: (M,), class of each.
        scores: (M, O), softmax of the teacher at each position, or None for no weights.
        truth: (M,) bool, whether the label was annotated; a pair of two such positions has weight 1. None: no pair has.
    """

    vectors: Tensor
    labels: Tensor
    scores: Tensor | None = None
    truth: Tensor | None = None

    def joint(self, rows: Tensor, columns: slice = slice(None)) -> Tensor:
        """Weights of pairs, (rows, columns): the probability that both have the same class for the teacher.

        Args:
            rows: indices of the positions in front.
        """
        assert self.scores is not None
        joint = self.scores[rows] @ self.scores[columns].T
        if self.truth is None:
            return joint
        return joint.masked_fill(self.truth[rows, None] & self.truth[columns], 1.0)


def weighted_contrast(
    features_ND: Tensor,
    among: ContrastSet,
    own_N: Tensor,
    temperature: float = 0.07,
    shifted: bool = False,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """Supervised contrast of anchors with a set of positions, each positive pair weighted by P_ij.

    With s_ij = a_i . c_j / temperature: L_i = -(1/|pos_i|) sum_{j in pos_i} P_ij ( s_ij - log( exp(s_ij) + neg_i ) ), where
    neg_i is the sum of exp(s_ij) over positions of other classes, and pos_i has those of its class but itself.

    Args:
        features_ND: anchors before normalisation; the gradient reaches them.
        among: with the anchors themselves.
        own_N: int64, index of each anchor in `among`.
        shifted: subtract max_j s_ij in the numerator and not in neg_i, as in the released code.
        block: entries of s that are computed at once.

    Returns:
        the sum of L_i over anchors with a positive, and their number.

    Example:
        >>> rows = torch.eye(2)[[0, 0, 1]]
        >>> total, count = weighted_contrast(rows, ContrastSet(rows, torch.tensor([1, 1, 2])), torch.arange(3), 1.0)
        >>> round((total / count).item(), 4), count
        (0.3133, tensor(2))
    """
    anchors_ND = functional.normalize(precise(features_ND), dim=1)
    total, count = _Contrast.apply(anchors_ND, among, own_N, temperature, shifted, block)
    return total, count


class _Contrast(torch.autograd.Function):
    """Loss and gradient block by block in the forward pass, so that no similarity is kept for the backward pass."""

    @staticmethod
    def forward(ctx, anchors_ND, among, own_N, temperature, shifted, block):
        columns = len(among.labels)
        rows = max(1, block // max(1, columns))
        gradient = torch.zeros_like(anchors_ND)
        total, count = anchors_ND.new_zeros(()), torch.zeros((), dtype=torch.int64, device=anchors_ND.device)
        for start in range(0, len(anchors_ND), rows):
            part = slice(start, start + rows)
            value, grad, positives = _block(anchors_ND[part], among, own_N[part], temperature, shifted)
            total, count = total + value, count + positives
            gradient[part] = grad
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    def backward(ctx, grad_total, _):
        (gradient,) = ctx.saved_tensors
        return grad_total * gradient, None, None, None, None, None


def _block(
    anchors_RD: Tensor, among: ContrastSet, own_R: Tensor, temperature: float, shifted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of L_i over some anchors, its gradient, and the number of anchors with a positive."""
    similarity = anchors_RD @ among.vectors.T.to(anchors_RD) / temperature
    same = among.labels[own_R, None] == among.labels
    powers = similarity.exp()
    negative = powers.masked_fill(same, 0.0)
    negatives = negative.sum(dim=1, keepdim=True)
    same = same.scatter(1, own_R[:, None], False)
    number = same.sum(dim=1, keepdim=True)
    weight = same.to(similarity.dtype)
    if among.scores is not None:
        weight = weight * among.joint(own_R)
    weight = weight / number.clamp(min=1)
    if shifted:
        similarity = similarity - similarity.amax(dim=1, keepdim=True)
        powers = similarity.exp()
    denominator = powers + negatives
    value = (weight * (denominator.log() - similarity)).sum()
    # d/ds of a positive: -P (1 - e / (e + neg)); of a negative: its exp(s) times the sum of P / (e + neg) over positives
    slope = weight * (powers / denominator - 1) + negative * (weight / denominator).sum(dim=1, keepdim=True)
    return value, slope @ among.vectors.to(anchors_RD) / temperature, (number > 0).sum()

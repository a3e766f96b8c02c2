"""Terms of methods that decide for every class on its own, without an output for background (DKD, STAR, Adapter)."""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precisely


@precisely
def one_vs_rest(logits_BNHW: Tensor, labels_BHW: Tensor, first: int, positive_weight: float | Tensor = 1.0) -> Tensor:
    """Binary cross-entropy of some classes: w softplus(-x_c) where y = c, softplus(x_c) elsewhere.

    Every other label, including background and 255, is a negative for each of these classes.

    Args:
        logits_BNHW: full-resolution logits of N classes.
        labels_BHW: int64 labels.
        first: label of the first of the N classes.
        positive_weight: w, a number, or one per class (N,).

    Returns:
        (B, N, H, W).

    Example:
        >>> one_vs_rest(torch.zeros(1, 2, 1, 2), torch.tensor([[[3, 0]]]), first=3, positive_weight=2.0).squeeze()
        tensor([[1.3863, 0.6931],
                [0.6931, 0.6931]])
    """
    classes_N = torch.arange(first, first + logits_BNHW.shape[1], device=labels_BHW.device)
    own_BNHW = labels_BHW[:, None] == classes_N[:, None, None]
    if isinstance(positive_weight, Tensor):
        weight = positive_weight.to(logits_BNHW).view(-1, 1, 1)
    else:
        weight = torch.full((1, 1, 1), positive_weight, dtype=logits_BNHW.dtype, device=logits_BNHW.device)
    loss = functional.softplus(logits_BNHW.where(~own_BNHW, -logits_BNHW))
    return loss * weight.where(own_BNHW, 1.0)


@precisely
def binary_cross_entropy(logits_BNHW: Tensor, targets_BNHW: Tensor) -> Tensor:
    """Binary cross-entropy with soft targets, softplus(x) - q x; its minimum is the entropy of the targets, not 0.

    Args:
        logits_BNHW: x.
        targets_BNHW: q in [0, 1], without gradient.

    Returns:
        (B, N, H, W).

    Example:
        >>> binary_cross_entropy(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.5)).item()
        0.6931471824645996
    """
    return functional.softplus(logits_BNHW) - targets_BNHW * logits_BNHW


@precisely
def decomposed(features_BCHW: Tensor, weight_NC11: Tensor) -> tuple[Tensor, Tensor]:
    """The positive and the negative reasons of linear classifiers (DKD, Baek et al., NeurIPS 2022).

    z+_c = sum_d f_d max(w_cd, 0) and z-_c = sum_d f_d min(w_cd, 0); with features that are not negative, z+ + z- + b is
    the logit, z+ >= 0 and z- <= 0.

    Args:
        features_BCHW: input of the classifiers.
        weight_NC11: weights of the N classifiers.

    Returns:
        z+ and z-, each (B, N, H, W).

    Example:
        >>> positive, negative = decomposed(torch.ones(1, 2, 1, 1), torch.tensor([2.0, -3.0]).view(1, 2, 1, 1))
        >>> positive.item(), negative.item()
        (2.0, -3.0)
    """
    return (
        functional.conv2d(features_BCHW, weight_NC11.clamp(min=0)),
        functional.conv2d(features_BCHW, weight_NC11.clamp(max=0)),
    )


def decided(logits_BNHW: Tensor, threshold: float = 0.0) -> Tensor:
    """The decision of one-vs-rest classifiers: the best class, or background where no logit is above the threshold.

    Args:
        logits_BNHW: of N classes, without background.
        threshold: a logit; 0 is a score of one half.

    Returns:
        (B, H, W) int64, 0 for background and c + 1 for the class of channel c.

    Example:
        >>> decided(torch.tensor([[-1.0, 0.4], [-2.0, 0.6]]).view(1, 2, 1, 2)).squeeze()
        tensor([0, 2])
    """
    best, number = logits_BNHW.max(dim=1)
    return (number + 1).where(best > threshold, 0)

"""Supervised terms per pixel. Published code averages them over *all* pixels, with 0 for ignored ones."""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.classes import IGNORE
from contseg.precision import precisely


@precisely
def cross_entropy(logits_BKHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Ordinary cross-entropy per pixel, -x_y + log sum_c exp(x_c).

    Args:
        logits_BKHW: full-resolution logits.
        labels_BHW: int64 labels 0..K-1, 255 ignored.

    Returns:
        (B, H, W), 0 where ignored.

    Example:
        >>> cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]]))
        tensor([[[0.6931, 0.0000]]])
    """
    return functional.cross_entropy(logits_BKHW, labels_BHW, ignore_index=IGNORE, reduction="none")


@precisely
def unbiased_cross_entropy(
    logits_BKHW: Tensor, labels_BHW: Tensor, old_classes: int, annotated_BK: Tensor | None = None
) -> Tensor:
    """Cross-entropy in which "background" means background *or any old class* (MiB, Cermelli et al., CVPR 2020, eq. 5).

    In a later step only new classes are annotated, so a pixel labelled 0 may belong to any old class:
    log p(0) = lse(x_0 .. x_{O-1}) - lse(x), log p(c) = x_c - lse(x) for new c.

    Args:
        logits_BKHW: full-resolution logits.
        labels_BHW: int64 labels, 255 ignored. Old labels count as background, unless annotated.
        old_classes: O, including background.
        annotated_BK: bool, the classes that were annotated in each image. Old labels of these are truth, and a background
            label excludes them. It may hide any other class, such as a new class in an exemplar of an earlier step.
            Default: the new classes only.

    Returns:
        (B, H, W), 0 where ignored.

    Example:
        >>> unbiased_cross_entropy(torch.zeros(1, 4, 1, 2), torch.tensor([[[0, 3]]]), old_classes=3)
        tensor([[[0.2877, 1.3863]]])
    """
    hidden_logits = logits_BKHW[:, :old_classes]
    if annotated_BK is not None:
        hides = ~annotated_BK
        hides[:, 0] = True  # a background label may always mean background itself
        hidden_logits = logits_BKHW.masked_fill(~hides[:, :, None, None], -torch.inf)
    truth = true_labels(labels_BHW, old_classes, annotated_BK)
    log_total = logits_BKHW.logsumexp(dim=1)
    log_background = hidden_logits.logsumexp(dim=1)
    own = logits_BKHW.gather(1, labels_BHW.where(truth, 0).unsqueeze(1)).squeeze(1)
    loss = log_total - own.where(truth, log_background)
    return loss.masked_fill(labels_BHW == IGNORE, 0.0)


def true_labels(labels_BHW: Tensor, old_classes: int, annotated_BK: Tensor | None = None) -> Tensor:
    """Where a label is its class, and not perhaps a hidden one, see `unbiased_cross_entropy`: (B, H, W) bool.

    Example:
        >>> true_labels(torch.tensor([[[0, 1, 2, 255]]]), old_classes=2)
        tensor([[[False, False,  True, False]]])
    """
    truth = (labels_BHW >= old_classes) & (labels_BHW != IGNORE)
    if annotated_BK is None:
        return truth
    is_old = (labels_BHW > 0) & (labels_BHW < old_classes)
    known = annotated_BK.gather(1, labels_BHW.where(is_old, 0).flatten(1)).view_as(labels_BHW)
    return truth | (is_old & known)


@precisely
def sigmoid_cross_entropy(logits_BKHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Binary cross-entropy of every output against the one-hot label, summed over outputs: sum_c softplus(x_c) - x_y.

    The supervised term of LwF-MC, SSUL, IDEC and LAG. As a sum, it grows with the number of classes.

    Args:
        logits_BKHW: full-resolution logits.
        labels_BHW: int64 labels 0..K-1, 255 ignored.

    Returns:
        (B, H, W), 0 where ignored.

    Example:
        >>> sigmoid_cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]]))
        tensor([[[1.3863, 0.0000]]])
    """
    known = labels_BHW != IGNORE
    own = logits_BKHW.gather(1, labels_BHW.where(known, 0).unsqueeze(1)).squeeze(1)
    return (functional.softplus(logits_BKHW).sum(dim=1) - own).where(known, 0.0)


@precisely
def focal_cross_entropy(logits_BKHW: Tensor, labels_BHW: Tensor, alpha: float = 1.0, gamma: float = 0.0) -> Tensor:
    """Cross-entropy with a smaller weight on confident pixels: alpha (1 - p_y)^gamma (-log p_y) (Lin et al., ICCV 2017).

    An optional supervised term in the code of SSUL, IDEC and LAG. Their alpha of 1 and gamma of 0 give plain cross-entropy.

    Returns:
        (B, H, W), 0 where ignored.

    Example:
        >>> focal_cross_entropy(torch.zeros(1, 2, 1, 1), torch.tensor([[[1]]]), gamma=1.0)
        tensor([[[0.3466]]])
    """
    loss = cross_entropy(logits_BKHW, labels_BHW)
    if gamma == 0:  # 0^0 has no gradient
        return alpha * loss
    return alpha * (-torch.expm1(-loss)) ** gamma * loss

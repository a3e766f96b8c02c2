"""Prototypes, a feature vector per class: attraction, repulsion and matching (SDR, CVPR 2021).

The functions take sums and counts per class, which can be added over ranks before means are computed. They are vectorised
over classes; a class without pixels has count 0 and is masked. Labels outside 0..K-1, such as 255, are ignored.
"""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precisely


def nearest(map_HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map (..., H, W) by nearest neighbour: (..., h, w).

    Example:
        >>> nearest(torch.arange(16).view(1, 4, 4), (2, 2))
        tensor([[[ 0,  2],
                 [ 8, 10]]])
    """
    rows, columns = (
        functional.interpolate(torch.arange(old, dtype=torch.float64, device=map_HW.device)[None, None], new)
        for old, new in zip(map_HW.shape[-2:], size, strict=True)
    )
    return map_HW[..., rows.long().view(-1, 1), columns.long().flatten()]


@precisely
def class_sums(features_BDHW: Tensor, labels_BHW: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Sum of the features of each class, and its number of pixels: (K, D), and (K,) int64.

    Example:
        >>> class_sums(torch.tensor([[[[1.0, 2.0, 4.0]]]]), torch.tensor([[[0, 1, 1]]]), 3)
        (tensor([[1.],
                [6.],
                [0.]]), tensor([1, 2, 0]))
    """
    numbers_K = torch.arange(classes, device=labels_BHW.device)
    members_BKN = labels_BHW.flatten(1)[:, None] == numbers_K[:, None]
    # a matrix product: deterministic on every device, without a copy of the features
    sums_BKD = members_BKN.to(features_BDHW.dtype) @ features_BDHW.flatten(2).mT
    return sums_BKD.sum(dim=0), members_BKN.sum(dim=(0, 2))


@precisely
def class_errors(features_BDHW: Tensor, labels_BHW: Tensor, prototypes_KD: Tensor) -> Tensor:
    """Sum over the pixels of each class of (1/D) |f - p_c|^2: (K,).

    Example:
        >>> class_errors(torch.tensor([[[[1.0, 2.0, 4.0]]]]), torch.tensor([[[0, 1, 1]]]), torch.ones(2, 1))
        tensor([ 0., 10.])
    """
    classes = len(prototypes_KD)
    own_BDHW = prototypes_KD[labels_BHW.where(labels_BHW < classes, 0)].movedim(3, 1)
    errors_BHW = (features_BDHW - own_BDHW).square().mean(dim=1)
    return class_sums(errors_BHW.unsqueeze(1), labels_BHW, classes)[0].squeeze(1)


@precisely
def class_means(sums_KD: Tensor, counts_K: Tensor) -> Tensor:
    """Mean feature of each class, (K, D); 0 for a class without pixels."""
    return sums_KD / counts_K.clamp(min=1).unsqueeze(1)


@precisely
def update_prototypes(prototypes_KD: Tensor, counts_K: Tensor, sums_KD: Tensor, added_K: Tensor) -> tuple[Tensor, Tensor]:
    """Running means after more pixels: p <- (n p + sum of features) / (n + m), n <- n + m.

    Written as p + (sum - m p) / (n + m), so that rounding does not grow with n.

    Args:
        prototypes_KD: the means p.
        counts_K: the numbers of pixels n that they are means of.
        sums_KD, added_K: sums and counts of the new pixels, see `class_sums`; classes without new pixels are unchanged.

    Example:
        >>> update_prototypes(torch.tensor([[1.0]]), torch.tensor([3]), torch.tensor([[5.0]]), torch.tensor([1]))
        (tensor([[2.]]), tensor([4]))
    """
    total_K = counts_K + added_K
    moved_KD = (sums_KD - added_K.unsqueeze(1) * prototypes_KD) / total_K.clamp(min=1).unsqueeze(1)
    return prototypes_KD + moved_KD, total_K


def mean_over_classes(values_K: Tensor, present_K: Tensor) -> Tensor:
    """Mean over the present classes; without any, 0 with a gradient.

    Example:
        >>> mean_over_classes(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([True, False, True]))
        tensor(3.)
    """
    return values_K.where(present_K, 0.0).sum() / present_K.sum().clamp(min=1)


@precisely
def attraction(errors_K: Tensor, counts_K: Tensor, present_K: Tensor) -> Tensor:
    """Distance of features from the prototype of their class: mean over classes and their pixels of (1/D) |f - p_c|^2.

    Args:
        errors_K: see `class_errors`.
        counts_K: pixels of each class.
        present_K: (K,) bool, the classes to average over; the values of others are ignored.

    Example:
        >>> attraction(torch.tensor([2.0, 9.0]), torch.tensor([4, 3]), torch.tensor([True, True]))
        tensor(1.7500)
    """
    return mean_over_classes(errors_K / counts_K.clamp(min=1), present_K)


@precisely
def repulsion(means_KD: Tensor, present_K: Tensor) -> Tensor:
    """Inverse distance between class means: mean of 1 / |m_c - m_c'| over the pairs of present classes.

    Pairs at distance 0, up to rounding, are ignored; without any pair the value is 0.

    Example:
        >>> repulsion(torch.tensor([[0.0, 0.0], [3.0, 4.0], [7.0, 7.0]]), torch.tensor([True, True, False]))
        tensor(0.2000)
    """
    # differences, as products lose precision for close means
    distances_KK = torch.cdist(means_KD, means_KD, compute_mode="donot_use_mm_for_euclid_dist")
    lengths_K = means_KD.detach().norm(dim=1)
    rounding_KK = 100 * torch.finfo(means_KD.dtype).eps * (lengths_K[:, None] + lengths_K)
    pairs_KK = present_K[:, None] & present_K & (distances_KK > rounding_KK)
    pushed_KK = distances_KK.where(pairs_KK, torch.inf).reciprocal()
    return pushed_KK.sum() / pairs_KK.sum().clamp(min=1)


@precisely
def matching(means_KD: Tensor, prototypes_KD: Tensor, present_K: Tensor) -> Tensor:
    """Distance of class means from prototypes: mean over classes of (1/D) |m_c - p_c|^2.

    Example:
        >>> matching(torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0], [0.0]]), torch.tensor([True, False]))
        tensor(4.)
    """
    return mean_over_classes((means_KD - prototypes_KD).square().mean(dim=1), present_K)

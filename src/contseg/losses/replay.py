"""Replay of features instead of images: what STAR and Adapter draw, keep close and keep apart."""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precisely


def sampled(values_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    """A map at the centres of the cells of a feature map, such as rows and columns 8, 24, 40 ... at stride 16.

    Args:
        values_BHW: labels or masks at the resolution of the image.
        size: height and width of the feature map.

    Returns:
        (B, *size).

    Example:
        >>> sampled(torch.arange(16).view(1, 4, 4), (2, 2))
        tensor([[[ 5,  7],
                 [13, 15]]])
    """
    rows, columns = (
        (torch.arange(cells, device=values_BHW.device) * stride + stride // 2).clamp(max=length - 1)
        for length, cells in zip(values_BHW.shape[1:], size, strict=True)
        for stride in [-(-length // cells)]
    )
    return values_BHW[:, rows[:, None], columns]


@precisely
def fake_features(
    prototypes_KD: Tensor, noise_KD: Tensor, norms_2K: Tensor, counts_K: Tensor, direction_RD: Tensor, length_RD: Tensor
) -> Tensor:
    """Draw features of old classes: (p_k + r_k e) (s_k e' + m_k), with p_k a unit vector (STAR, Chen et al., NeurIPS 2023).

    Args:
        prototypes_KD: p, mean direction of each class.
        noise_KD: r, deviation of directions per dimension.
        norms_2K: m and s, mean and deviation of the norm.
        counts_K: int64, features of each class; R is their sum.
        direction_RD: e, standard normal draws, classes in order.
        length_RD: e', standard normal draws: (R, 1) for a norm per feature, or (R, D) as in the released code.

    Returns:
        (R, D).

    Example:
        >>> one, norms, draws = torch.ones(1, 2), torch.tensor([[3.0], [0.0]]), torch.zeros(2, 2)
        >>> fake_features(one, 0 * one, norms, torch.tensor([2]), draws, draws[:, :1])
        tensor([[3., 3.],
                [3., 3.]])
    """
    classes_R = torch.repeat_interleave(counts_K)
    direction = prototypes_KD[classes_R] + noise_KD[classes_R] * direction_RD
    return direction * (norms_2K[1, classes_R, None] * length_RD + norms_2K[0, classes_R, None])


@precisely
def masked_distance(
    student_BDHW: Tensor, teacher_BDHW: Tensor, mask_BHW: Tensor, total: Tensor | None = None, epsilon: float = 0.0
) -> Tensor:
    """Squared distance of two maps under a mask, sum M (f - f')^2 / (D sum M + epsilon); 0 where the mask is empty.

    Args:
        student_BDHW, teacher_BDHW: maps; the second without gradient.
        mask_BHW: weights in [0, 1] at the size of the maps.
        total: sum of the mask; default: of this one.
        epsilon: 1e-4 in the released code of Adapter.

    Returns:
        a scalar.

    Example:
        >>> masked_distance(torch.ones(1, 2, 1, 2), torch.zeros(1, 2, 1, 2), torch.tensor([[[1.0, 0.0]]]))
        tensor(1.)
    """
    squares = ((student_BDHW - teacher_BDHW).square() * mask_BHW[:, None]).sum()
    divisor = student_BDHW.shape[1] * (mask_BHW.sum() if total is None else total) + epsilon
    return squares / divisor.where(divisor > 0, 1.0)


@precisely
def direction_sums(features_BDHW: Tensor, weights_BNHW: Tensor) -> Tensor:
    """Weighted sums of directions f / ||f||, (N, D).

    Args:
        weights_BNHW: N maps of weights, at the size of the features.

    Example:
        >>> direction_sums(torch.tensor([[[[3.0]], [[4.0]]]]), torch.full((1, 1, 1, 1), 2.0))
        tensor([[1.2000, 1.6000]])
    """
    return torch.einsum("bdhw,bnhw->nd", functional.normalize(features_BDHW, dim=1), weights_BNHW)


@precisely
def prototype_contrast(sums_ND: Tensor, prototypes_KD: Tensor) -> Tensor:
    """Distance of new classes from old ones: mean over new classes of 1 / min_k ||mu_c - p_k||.

    A new class that does not occur has mu = 0 and contributes a constant 1.

    Args:
        sums_ND: sums of directions of the new classes; mu is the unit vector of each.
        prototypes_KD: p, unit vectors of the old classes; rows of zeros (classes that never occurred) are left out.

    Returns:
        a scalar; 0 without an old class.

    Example:
        >>> prototype_contrast(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, -1.0]]))
        tensor(0.7500)
    """
    known = prototypes_KD.any(dim=1)
    centre = functional.normalize(sums_ND, dim=1)
    distances = (centre[:, None] - prototypes_KD).square().sum(dim=2).clamp(min=1e-12).sqrt()
    inverse = 1 / distances.masked_fill(~known, torch.inf).amin(dim=1)
    return inverse.mean()

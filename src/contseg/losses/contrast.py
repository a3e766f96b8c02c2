"""Contrast between the student's and the teacher's features: regions (IDEC) and images (LAG)."""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precise, precisely

MARGIN, NEAR = 1.0, 1e-6


@precisely
def fold_unknown(logits_BKHW: Tensor) -> Tensor:
    """Logits with the output "unknown" added to that of background (IDEC's contrast adds logits, not probabilities).

    Example:
        >>> fold_unknown(torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)).flatten()
        tensor([3., 4.])
    """
    return torch.cat([logits_BKHW[:, :1] + logits_BKHW[:, 1:2], logits_BKHW[:, 2:]], dim=1)


@precisely
def triplet(anchor_KD: Tensor, positive_KD: Tensor, negative_KD: Tensor) -> Tensor:
    """max(0, |a - p| - |a - n| + 1) per row, Euclidean, with 1e-6 added to every difference: (K,)."""
    near = torch.linalg.vector_norm(anchor_KD - positive_KD + NEAR, dim=1)
    far = torch.linalg.vector_norm(anchor_KD - negative_KD + NEAR, dim=1)
    return (near - far + MARGIN).clamp(min=0)


@precisely
def region_contrast(
    student_sums_KD: Tensor, teacher_sums_KD: Tensor, student_total_D: Tensor, pixels_K: Tensor, pixels: Tensor
) -> Tensor:
    """Asymmetric contrast of regions (ARCL of IDEC), in our interpretation: one region per class, normalised means.

    For every class that the teacher predicts, the anchor is the teacher's mean feature in the region of the class, the
    positive is the student's mean in the same region, and the negative is the student's mean outside it.

    Args:
        student_sums_KD, teacher_sums_KD: sums of the features in each region, see `prototypes.class_sums`.
        student_total_D: sum of the student's features over all pixels.
        pixels_K: number of pixels in each region.
        pixels: number of all pixels, a scalar.

    Returns:
        the mean of `triplet` over the regions with pixels inside and outside; 0 without such regions.

    Example:
        >>> sums = torch.tensor([[2.0, 0.0]])
        >>> region_contrast(sums, sums, torch.tensor([2.0, 2.0]), torch.tensor([2.0]), torch.tensor(4.0))
        tensor(0.)
    """
    outside = pixels - pixels_K
    usable = (pixels_K > 0) & (outside > 0)
    anchor = functional.normalize(teacher_sums_KD, dim=1)
    positive = functional.normalize(student_sums_KD, dim=1)
    negative = functional.normalize(student_total_D - student_sums_KD, dim=1)
    return (triplet(anchor, positive, negative) * usable).sum() / usable.sum().clamp(min=1)


def released_regions(
    student_BCHW: Tensor, teacher_BCHW: Tensor, predicted_BHW: Tensor, classes: list[int], length: int = 256
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The regions of ARCL in the released IDEC code, including its defects.

    A mask for the whole batch gains the pixels of a random class in each round and is never cleared. Only the features of
    the first image are used. Anchor, positive and negative are the first `length` positive values, channel by channel, of
    the teacher's features inside the mask, and of the student's features inside and outside it. Rounds in which their
    lengths differ are skipped; a round without positive values counts as the margin.

    Args:
        student_BCHW, teacher_BCHW: features of any size, resized here to that of `predicted_BHW`.
        predicted_BHW: the teacher's classes, background 0.
        classes: the random class of each round.
        length: maximum number of values.

    Returns:
        anchor, positive and negative of the rounds that are not skipped.
    """
    size = (predicted_BHW.shape[1], predicted_BHW.shape[2])
    student, teacher = (
        functional.interpolate(precise(features[:1]), size, mode="bilinear", align_corners=False)[0, :256]
        for features in (student_BCHW, teacher_BCHW)
    )
    mask = torch.zeros(size, dtype=torch.bool, device=predicted_BHW.device)
    rounds = []
    for drawn in classes:
        mask = mask | (predicted_BHW == drawn).any(dim=0)
        anchor, positive, negative = (
            _first_positives(features, region, length)
            for features, region in ((teacher, mask), (student, mask), (student, ~mask))
        )
        if len(anchor) == len(positive) == len(negative):
            rounds.append((anchor, positive, negative))
    return rounds


def released_region_contrast(
    student_BCHW: Tensor, teacher_BCHW: Tensor, predicted_BHW: Tensor, classes: list[int], length: int = 256
) -> Tensor:
    """ARCL of the released IDEC code: the sum of `triplet` over `released_regions`, divided by the number of rounds."""
    rounds = released_regions(student_BCHW, teacher_BCHW, predicted_BHW, classes, length)
    if not rounds:
        return precise(student_BCHW[:0]).sum()  # 0, with a gradient
    return torch.stack([triplet(*(vector[None] for vector in regions))[0] for regions in rounds]).sum() / len(classes)


def _first_positives(features_CHW: Tensor, mask_HW: Tensor, length: int) -> Tensor:
    values = features_CHW[:, mask_HW].flatten()
    return values[values > 0][:length]


@precisely
def decoupled_contrast(
    student_BD: Tensor,
    teacher_BD: Tensor,
    temperature: float = 0.5,
    own: float = -torch.inf,
    sigma: float | None = None,
) -> Tensor:
    """Decoupled contrastive loss (Yeh et al., ECCV 2022), from student to teacher, with images as instances.

    mean_i [ -w_i s_i . t_i / tau + log sum_j ( exp(s_i . s_j / tau + m_ij) + exp(s_i . t_j / tau + m_ij) ) ] with
    m_ii = `own`, other m_ij = 0.

    Args:
        student_BD, teacher_BD: a row per image.
        own: added to the entries of an image with itself. The released LAG code uses log(1e-45), about -103, which does not
            exclude entries with large products.
        sigma: temperature of the weights w_i = 2 - B softmax_i(s_i . t_i / sigma); None for w_i = 1.

    Returns:
        a scalar; -inf for a batch of one unless `own` is finite.

    Example:
        >>> rows = torch.eye(2)
        >>> decoupled_contrast(rows, rows, temperature=1.0)
        tensor(-0.3069)
    """
    agreement = (student_BD * teacher_BD).sum(dim=1)
    weight = 1.0 if sigma is None else 2 - len(agreement) * (agreement / sigma).softmax(dim=0)
    mask = torch.eye(len(student_BD), dtype=torch.bool, device=student_BD.device)
    others = torch.cat([student_BD @ student_BD.T, student_BD @ teacher_BD.T], dim=1) / temperature
    own_BB = torch.zeros_like(mask, dtype=others.dtype).masked_fill(mask, own)
    return (torch.logsumexp(others + own_BB.repeat(1, 2), dim=1) - weight * agreement / temperature).mean()

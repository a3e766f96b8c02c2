"""Distillation weighted by the similarity of classes: new classes teach most what resembles them (REMINDER, CVPR 2022)."""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precisely


@precisely
def upsampled_sums(features_BDHW: Tensor, labels_BHW: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Sums of features over the pixels of each class, and numbers of pixels: (K, D), (K,) int64.

    Features are read at the size of the labels, resized bilinearly with aligned corners. They are not resized: the sum over
    a class is linear, so the mask of the class is reduced by the transposed operation, in the memory of one image.

    Args:
        first: label of the first class.
        count: number of classes K.

    Example:
        >>> upsampled_sums(torch.tensor([[[[0.0, 3.0]]]]), torch.tensor([[[1, 1, 2, 2]]]), first=1, count=2)
        (tensor([[1.],
                [5.]]), tensor([2, 2]))
    """
    rows_hH, columns_wW = (
        _weights(small, large, features_BDHW)
        for small, large in zip(features_BDHW.shape[2:], labels_BHW.shape[1:], strict=True)
    )
    classes_K = torch.arange(first, first + count, device=labels_BHW.device)
    sums_KD = features_BDHW.new_zeros(count, features_BDHW.shape[1])
    for features_DHW, labels_HW in zip(features_BDHW, labels_BHW, strict=True):
        mask_KHW = (labels_HW == classes_K[:, None, None]).to(features_BDHW.dtype)
        sums_KD += (rows_hH @ mask_KHW @ columns_wW.T).flatten(1) @ features_DHW.flatten(1).T
    return sums_KD, (labels_BHW.flatten()[:, None] == classes_K).sum(dim=0)


def _weights(small: int, large: int, like: Tensor) -> Tensor:
    """Weight of each of `small` cells in each of `large` pixels, with aligned corners: (small, large)."""
    eye = torch.eye(small, dtype=like.dtype, device=like.device)[None]
    return functional.interpolate(eye, large, mode="linear", align_corners=True)[0]


@precisely
def similarity_weights(new_KD: Tensor, old_OD: Tensor, delta: float = 0.0) -> Tensor:
    """Weights of old classes for the pixels of each new class: softmax of the cosines of their prototypes, (K, O).

    Cosines are in [-1, 1], so the largest weight is at most e^2 times the smallest; without `delta` they sum to 1. A
    prototype of zeros has the cosine 0.

    Args:
        new_KD, old_OD: prototypes.
        delta: weights below delta / O become 0; 1 keeps the classes that are more similar than on average.

    Example:
        >>> similarity_weights(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), delta=1.0)
        tensor([[0.7311, 0.0000]])
    """
    weights = cosines(new_KD, old_OD).softmax(dim=1)
    return weights.where(weights >= delta / len(old_OD), 0.0)


def cosines(new_KD: Tensor, old_OD: Tensor) -> Tensor:
    """Cosines between prototypes, (K, O); 0 for a prototype of zeros."""
    return functional.normalize(new_KD, dim=1) @ functional.normalize(old_OD, dim=1).T


@precisely
def similarity_distillation(
    student_BKHW: Tensor, teacher_BOHW: Tensor, labels_BHW: Tensor, weights_KO: Tensor, temperature: float = 3.0
) -> tuple[Tensor, Tensor]:
    """Distillation of the old outputs in the pixels of new classes, each old class with its weight.

    T^2 sum over pixels and old classes of -(q w + 1e-7) log s, with q = softmax(teacher / T) and s = softmax of the old
    outputs of the student / T.

    Args:
        student_BKHW, teacher_BOHW: logits at the size of the labels.
        labels_BHW: the K new classes are O to O + K - 1.
        weights_KO: see `similarity_weights`; without gradient.

    Returns:
        the sum, a scalar, and the number of pixels.

    Example:
        >>> labels, weights = torch.tensor([[[2]]]), torch.tensor([[0.5, 0.5]])
        >>> similarity_distillation(torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1), labels, weights, temperature=1.0)
        (tensor(0.3466), tensor(1))
    """
    old = teacher_BOHW.shape[1]
    new_BHW = (labels_BHW >= old) & (labels_BHW < old + len(weights_KO))
    q_NO, log_s_NO = ((logits[:, :old].movedim(1, 3)[new_BHW] / temperature) for logits in (teacher_BOHW, student_BKHW))
    weights_NO = weights_KO[labels_BHW[new_BHW] - old]
    terms_NO = -(q_NO.softmax(dim=1) * weights_NO + 1e-7) * log_s_NO.log_softmax(dim=1)
    return temperature**2 * terms_NO.sum(), new_BHW.sum()

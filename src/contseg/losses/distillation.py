"""Distillation between logits, per pixel."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contseg.precision import precisely


@precisely
def unbiased_distillation(student_BKHW: Tensor, teacher_BOHW: Tensor, alpha: float = 1.0) -> Tensor:
    """Distillation in which the teacher's background includes all *new* classes of the student (MiB, CVPR 2020, eq. 8).

    q = softmax(alpha x°), log r_0 = lse(x_0, x_O .. x_{K-1}) - lse(x), log r_c = x_c - lse(x) for old c >= 1;
    the loss of a pixel is -(1/O) sum_c q_c log r_c.

    Args:
        student_BKHW: logits of the student, K >= O.
        teacher_BOHW: logits of the teacher, without gradient.
        alpha: inverse temperature of the teacher.

    Returns:
        (B, H, W).

    Example:
        >>> unbiased_distillation(torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))
        tensor([[[0.3760]]])
    """
    old_classes = teacher_BOHW.shape[1]
    log_total = student_BKHW.logsumexp(dim=1, keepdim=True)
    background = torch.cat([student_BKHW[:, :1], student_BKHW[:, old_classes:]], dim=1).logsumexp(dim=1, keepdim=True)
    log_r = torch.cat([background, student_BKHW[:, 1:old_classes]], dim=1) - log_total
    return -((alpha * teacher_BOHW).softmax(dim=1) * log_r).mean(dim=1)


@precisely
def distillation(student_BKHW: Tensor, teacher_BOHW: Tensor, alpha: float = 1.0) -> Tensor:
    """Cross-entropy between the softmax of the first O channels of student and teacher, divided by O.

    -(1/O) sum_c softmax(alpha x°)_c log softmax(x)_c. On logits it is the distillation of LwF and ILT; on features, with
    alpha 2, the criterion of IDEC and LAG. It is not 0 where student and teacher agree.

    Args:
        student_BKHW: K >= O channels, of which the first O are used.
        teacher_BOHW: without gradient.
        alpha: inverse temperature of the teacher.

    Returns:
        (B, H, W).

    Example:
        >>> distillation(torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))
        tensor([[[0.3466]]])
    """
    log_student = student_BKHW[:, : teacher_BOHW.shape[1]].log_softmax(dim=1)
    return -((alpha * teacher_BOHW).softmax(dim=1) * log_student).mean(dim=1)


def dense_distillation(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    weights: Sequence[float] = (0.5, 1.0, 2.0, 1.0),
    decay: float = 1.0,
    decay_last: bool = False,
    criterion: Callable[[Tensor, Tensor], Tensor] = lambda student, teacher: distillation(student, teacher, alpha=2.0),
) -> Tensor:
    """Distillation of features at several depths, deeper ones with larger weights (DADA of IDEC, Zhao et al., TPAMI 2023).

    decay (sum_{l < L} w_l KD(S_l, T_l)) + w_L KD(S_L, T_L), each KD a mean over its map.

    Args:
        students, teachers: L pairs of maps (B, C_l, H_l, W_l), shallow ones first.
        weights: one per pair.
        decay: lambda^(epoch / epochs).
        decay_last: whether the last pair decays too (LAG).
        criterion: loss between two maps, see `distillation`.

    Returns:
        a scalar.

    Example:
        >>> maps = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)]
        >>> dense_distillation(maps, maps, weights=(1.0, 2.0))
        tensor(1.0397)
    """
    *shallow, last = [
        weight * criterion(student, teacher).mean()
        for student, teacher, weight in zip(students, teachers, weights, strict=True)
    ]
    upper = torch.stack(shallow).sum()
    return decay * (upper + last) if decay_last else decay * upper + last

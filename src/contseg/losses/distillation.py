"""Distillation between logits, per pixel."""

import torch
from torch import Tensor


def unbiased_distillation(student_BKHW: Tensor, teacher_BOHW: Tensor, alpha: float = 1.0) -> Tensor:
    """Distillation in which the teacher's background may be any *new* class to the student (MiB, CVPR 2020, eq. 8).

    q = softmax(alpha x°), log r_0 = lse(x_0, x_O .. x_{K-1}) - lse(x), log r_c = x_c - lse(x) for old c >= 1;
    the loss of a pixel is -(1/O) sum_c q_c log r_c.

    Args:
        student_BKHW: logits of the student, K >= O.
        teacher_BOHW: logits of the teacher, without gradient.
        alpha: sharpens the teacher.

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

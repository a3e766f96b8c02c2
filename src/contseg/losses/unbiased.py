"""Both terms of MiB in one pass, with the gradient written out."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from contseg.data.classes import IGNORE
from contseg.losses.cross_entropy import true_labels, unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.precision import precise


def unbiased_terms(
    student_BKHW: Tensor, teacher_BOHW: Tensor, labels_BHW: Tensor, annotated_BK: Tensor
) -> tuple[Tensor, Tensor]:
    """`unbiased_cross_entropy` and `unbiased_distillation`, two (B, H, W).

    Args:
        annotated_BK: see `unbiased_cross_entropy`.
    """
    supervised = unbiased_cross_entropy(student_BKHW, labels_BHW, teacher_BOHW.shape[1], annotated_BK)
    return supervised, unbiased_distillation(student_BKHW, teacher_BOHW)


def shared_unbiased_terms(
    student_BKHW: Tensor, teacher_BOHW: Tensor, labels_BHW: Tensor, annotated_BK: Tensor
) -> tuple[Tensor, Tensor]:
    """`unbiased_terms` up to rounding, in a third of the time: nearly one exponential per logit serves both terms.

    The classes that a background label may hide (H), and all others, are summed as groups, each shifted by its own maximum,
    so that neither underflows; lse(x) = log(exp lse(x_H) + exp lse(x_not H)). As sum_c q_c = 1, the distillation is
    (1/O) (lse(x) - q_0 lse(x_0, x_O ..) - sum_{0 < c < O} q_c x_c).

    Example:
        >>> logits, labels = torch.zeros(1, 3, 1, 1), torch.tensor([[[2]]])
        >>> annotated = torch.tensor([[False, False, True]])
        >>> shared_unbiased_terms(logits, logits[:, :2], labels, annotated)
        (tensor([[[1.0986]]]), tensor([[[0.3760]]]))
    """
    return _Shared.apply(precise(student_BKHW), precise(teacher_BOHW), labels_BHW, annotated_BK)


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, teacher: Tensor, labels: Tensor, annotated: Tensor) -> tuple[Tensor, Tensor]:
        old = teacher.shape[1]
        hides = ~annotated
        hides[:, 0] = True
        groups_B2K = torch.stack([hides, ~hides], dim=1).to(x.dtype)
        mask = hides[:, :, None, None]
        tops = torch.cat([x.masked_fill(one, -torch.inf).amax(dim=1, keepdim=True) for one in (~mask, mask)], dim=1)
        exponentials = x.sub(torch.where(mask, tops[:, :1], tops[:, 1:])).exp_()
        sums = torch.matmul(groups_B2K, exponentials.flatten(2)).unflatten(2, x.shape[2:])
        each = sums.clamp_(min=1.0).log_() + tops  # the maximum alone adds 1, so only an empty group is clamped, to -inf
        total = torch.logaddexp(each[:, 0], each[:, 1])

        truth = true_labels(labels, old, annotated)
        own = x.gather(1, labels.where(truth, 0).unsqueeze(1)).squeeze(1)
        ignored = labels == IGNORE
        supervised = (total - own.where(truth, each[:, 0])).masked_fill_(ignored, 0.0)

        targets = teacher.softmax(dim=1)
        wide = torch.cat([x[:, :1], x[:, old:]], dim=1)
        log_wide = wide.logsumexp(dim=1)
        kept = (targets[:, 1:] * x[:, 1:old]).sum(dim=1)
        ctx.save_for_backward(exponentials, groups_B2K, tops, each, total, targets, wide, log_wide, labels, truth, ignored)
        return supervised, (total - targets[:, 0] * log_wide - kept) / old

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, supervised: Tensor, kept: Tensor) -> tuple[Tensor, None, None, None]:
        exponentials, groups, tops, each, total, targets, wide, log_wide, labels, truth, ignored = ctx.saved_tensors
        old = targets.shape[1]
        supervised, kept = supervised.masked_fill(ignored, 0.0), kept / old
        share = (tops - total[:, None]).exp_() * (supervised + kept)[:, None]  # of softmax(x), per group
        share[:, 0] -= (tops[:, 0] - each[:, 0]).exp_() * supervised.masked_fill(truth, 0.0)
        factors = torch.matmul(groups.transpose(1, 2), share.nan_to_num_(0.0).flatten(2)).view_as(exponentials)
        gradient = factors.mul_(exponentials)
        gradient[:, 1:old].addcmul_(targets[:, 1:], kept[:, None], value=-1)
        background = (wide - log_wide[:, None]).exp_().mul_((targets[:, 0] * kept)[:, None])
        gradient[:, :1] -= background[:, :1]
        gradient[:, old:] -= background[:, 1:]
        gradient.scatter_add_(1, labels.where(truth, 0).unsqueeze(1), -supervised.where(truth, 0.0).unsqueeze(1))
        return gradient, None, None, None

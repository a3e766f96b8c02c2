"""Terms of BARM: a background that every step lowers by a residual of its own (Background Adaptation, ECCV 2024)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.one_vs_rest import binary_cross_entropy
from contseg.precision import precisely


def merged(raw: Sequence[Tensor], training: bool = False) -> Tensor:
    """The logits of all classes from the outputs of every step: [b, h_0[1:], h_1[1:], ...].

    Evaluation: b = h_0[0] + sum_{k > 0} min(h_k[0], 0), so that a residual only lowers background. In training, the newest
    residual is not clamped, and it alone has a gradient: b = sg(h_0[0] + sum_{0 < k < t} min(h_k[0], 0)) + h_t[0]. With one
    step, b = h_0[0].

    Args:
        raw: h_k of each step, (B, 1 + classes of the step, H, W); channel 0 is background or, from the second on, the
            residual of the step.

    Returns:
        (B, K, H, W).

    Example:
        >>> raw = [torch.full((1, 3, 1, 1), 2.0), torch.full((1, 2, 1, 1), 0.5)]
        >>> merged(raw).flatten(), merged(raw, training=True).flatten()
        (tensor([2.0000, 2.0000, 2.0000, 0.5000]), tensor([2.5000, 2.0000, 2.0000, 0.5000]))
    """
    first, *later = raw
    background = first[:, :1]
    if later:
        older = later[:-1] if training else later
        for one in older:
            background = background + one[:, :1].clamp(max=0)
        if training:
            background = background.detach() + later[-1][:, :1]
    return torch.cat([background, first[:, 1:], *(one[:, 1:] for one in later)], dim=1)


@precisely
def above_zero(residual_BHW: Tensor) -> Tensor:
    """What a residual costs on an object of the step, where it should lower background: softplus(r), (B, H, W).

    Example:
        >>> above_zero(torch.tensor([[[-9.0, 0.0, 9.0]]]))
        tensor([[[1.2340e-04, 6.9315e-01, 9.0001e+00]]])
    """
    return functional.softplus(residual_BHW)


@precisely
def below_zero(residual_BHW: Tensor) -> Tensor:
    """What a residual costs where nothing is labelled and background should stay: max(0, 1 - 2 sigmoid(r)), (B, H, W).

    Example:
        >>> below_zero(torch.tensor([[[-9.0, 0.0, 9.0]]]))
        tensor([[[0.9998, 0.0000, 0.0000]]])
    """
    return (1 - 2 * residual_BHW.sigmoid()).clamp(min=0)


@precisely
def branch_distance(student_BCHW: Tensor, teacher_BCHW: Tensor, where_BHW: Tensor, branches: int) -> Tensor:
    """Squared distance of branches where a mask is set: the sum over branches of means over all elements, a scalar.

    Positions outside the mask count as 0 in the mean.

    Args:
        student_BCHW, teacher_BCHW: channels of all branches, one branch after the other.
        where_BHW: bool.
        branches: their number.

    Example:
        >>> branch_distance(torch.ones(1, 4, 1, 2), torch.zeros(1, 4, 1, 2), torch.tensor([[[True, False]]]), 2)
        tensor(1.)
    """
    apart = (student_BCHW - teacher_BCHW).square().sum(dim=1).where(where_BHW, 0.0)
    return apart.mean() * (branches / max(1, student_BCHW.shape[1]))


@precisely
def grouped_distillation(student_BNHW: Tensor, teacher_BNHW: Tensor) -> Tensor:
    """Binary cross-entropy of every output of the old steps, background and residuals too, against the teacher's score.

    Args:
        student_BNHW, teacher_BNHW: the old steps' outputs before they are merged.

    Returns:
        the sum over outputs of the means over positions, a scalar.

    Example:
        >>> grouped_distillation(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1))
        tensor(2.0794)
    """
    return binary_cross_entropy(student_BNHW, teacher_BNHW.sigmoid()).sum(dim=1).mean()

"""What two steps share in their features, and where a class looks: the parts of LAG.

The formulas of the paper cannot be recovered from what is published; except for `released_consistency` these are this
project's reading.
"""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.distillation import distillation
from contseg.losses.precision import precisely


@precisely
def channel_divergence(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """KL(P_d of the teacher || P_d of the student) of every channel d, P_d its soft-max over space: (C,), mean over images.

    Example:
        >>> same = torch.rand(2, 3, 4, 4)
        >>> channel_divergence(same, same)
        tensor([0., 0., 0.])
    """
    log_student, log_teacher = (features.flatten(2).log_softmax(dim=2) for features in (student_BCHW, teacher_BCHW))
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=2).mean(dim=0)


def invariant_channels(divergence_C: Tensor, specific_share: float) -> Tensor:
    """Which channels are semantic-invariant, the round((1 - share) C) that diverge least; the others are sample-specific.

    Returns:
        (C,) bool.

    Example:
        >>> invariant_channels(torch.tensor([3.0, 1.0, 2.0, 9.0]), 0.5)
        tensor([False,  True,  True, False])
    """
    count = len(divergence_C)
    chosen = divergence_C.argsort(stable=True)[: round((1 - specific_share) * count)]
    return torch.zeros(count, dtype=torch.bool, device=divergence_C.device).index_fill(0, chosen, True)


@precisely
def released_consistency(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """What the released LAG code computes for its channel-wise consistency: (H,), a value for each of the first H channels.

    It takes the *height* of the map for the number of channels, the soft-max over rows, and swaps the roles: the teacher's
    log-probabilities are weighted by the student's probabilities.
    """
    height = student_BCHW.shape[2]
    rows = [features[:, :height].movedim(1, 0).flatten(0, 1) for features in (student_BCHW, teacher_BCHW)]  # (H B, H, W)
    return distillation(rows[1], rows[0], alpha=2.0).view(height, -1).mean(dim=1)


@precisely
def relevance(features_BCHW: Tensor, gradient_BCHW: Tensor) -> Tensor:
    """Where a class looks: relu(sum_d f_d dg/df_d), in parts of its sum over space: (B, H W), 0 where nothing counts.

    Args:
        gradient_BCHW: of the class's score with respect to the features.

    Example:
        >>> relevance(torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[0.2500, 0.7500]])
    """
    strength = functional.relu((features_BCHW * gradient_BCHW).sum(dim=1)).flatten(1)
    return strength / strength.sum(dim=1, keepdim=True).clamp(min=1e-12)


def relevance_divergence(student_BN: Tensor, teacher_BN: Tensor, floor: float = 1e-6) -> Tensor:
    """KL(teacher || student) of two relevance maps per image: (B,).

    Args:
        floor: added to both, so that a place that one of them does not look at costs a finite amount.

    Example:
        >>> relevance_divergence(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]]))
        tensor([0.])
    """
    student, teacher = (student_BN + floor).log(), (teacher_BN + floor).log()
    return (teacher_BN * (teacher - student)).sum(dim=1)

"""The parts of LAG: agreement between the features of two steps, and relevance maps of classes.

The paper and its code do not determine the formulas. Except for `released_consistency`, they are our interpretation.
"""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.distillation import distillation
from contseg.precision import precisely


@precisely
def channel_divergence(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """KL(teacher || student) of every channel's softmax over space: (C,), mean over images.

    Example:
        >>> same = torch.rand(2, 3, 4, 4)
        >>> channel_divergence(same, same)
        tensor([0., 0., 0.])
    """
    log_student, log_teacher = (features.flatten(2).log_softmax(dim=2) for features in (student_BCHW, teacher_BCHW))
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=2).mean(dim=0)


def invariant_channels(divergence_C: Tensor, specific_share: float) -> Tensor:
    """Semantic-invariant channels: the round((1 - share) C) channels that diverge least. The others are sample-specific.

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
    """Channel-wise consistency of the released LAG code: (H,), a value for each of the first H channels.

    It uses the *height* of the map as the number of channels and a softmax over rows, and it swaps the roles: the teacher's
    log-probabilities are weighted by the student's probabilities.
    """
    height = student_BCHW.shape[2]
    rows = [features[:, :height].movedim(1, 0).flatten(0, 1) for features in (student_BCHW, teacher_BCHW)]  # (H B, H, W)
    return distillation(rows[1], rows[0], alpha=2.0).view(height, -1).mean(dim=1)


@precisely
def relevance_strength(features_BCHW: Tensor, gradient_BCHW: Tensor) -> Tensor:
    """Relevance of each position for a class: relu(sum_d f_d dg/df_d), gradient times input: (B, H W).

    Args:
        gradient_BCHW: of the class's score with respect to the features.

    Example:
        >>> relevance_strength(torch.ones(1, 1, 1, 2), torch.tensor([[[[-1.0, 3.0]]]]))
        tensor([[0., 3.]])
    """
    return functional.relu((features_BCHW * gradient_BCHW).sum(dim=1)).flatten(1)


@precisely
def normalised_relevance(strength_BN: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Strengths divided by their sum over space, (B, N); 0 where the sum is 0.

    Args:
        floor: minimum divisor, so that a map of almost 0 is not scaled up to a sum of 1.

    Example:
        >>> normalised_relevance(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
        tensor([[0.2500, 0.7500],
                [0.0000, 0.0000]])
        >>> normalised_relevance(torch.tensor([[1.0, 3.0]]), floor=8.0)
        tensor([[0.1250, 0.3750]])
    """
    total = strength_BN.sum(dim=1, keepdim=True)
    return strength_BN / torch.maximum(total, torch.as_tensor(floor).to(total)).clamp(min=1e-12)


@precisely
def relevance(features_BCHW: Tensor, gradient_BCHW: Tensor) -> Tensor:
    """Relevance map of a class: the normalised strength of each position, (B, H W).

    Example:
        >>> relevance(torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[0.2500, 0.7500]])
    """
    return normalised_relevance(relevance_strength(features_BCHW, gradient_BCHW))


@precisely
def relevance_divergence(student_BN: Tensor, teacher_BN: Tensor, uniform: float = 0.1) -> Tensor:
    """KL(teacher || student) of two relevance maps per image, each mixed with the uniform map: (B,).

    A relevance map has exact zeros, and the divergence is infinite where only the student is 0. With the mixture
    R~ = (1 - e) R + e / N over N positions, the gradient at a zero of the student is at most N t~ / e. With a fixed floor
    instead, which is unrelated to the scale 1 / N of a map, it would be t / floor, and a single update can ruin a network.

    Args:
        uniform: e, the share of the uniform map.

    Example:
        >>> relevance_divergence(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]]))
        tensor([0.])
        >>> relevance_divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([2.6500])
    """
    places = student_BN.shape[1]
    student, teacher = ((1 - uniform) * maps + uniform / places for maps in (student_BN, teacher_BN))
    return (teacher * (teacher.log() - student.log())).sum(dim=1)

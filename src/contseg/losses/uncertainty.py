"""The loss on unsure pixels of Adapter."""

from torch import Tensor

from contseg.losses.confidence import top_two
from contseg.precision import precisely


@precisely
def unsure(scores_BNHW: Tensor, labels_BHW: Tensor, sure: float = 0.7) -> Tensor:
    """Pixels whose best class is neither their label nor has a high score, (B, H, W) bool.

    Args:
        scores_BNHW: of N >= 2 classes, without background.
        labels_BHW: label of the class of channel c is c + 1.

    Example:
        >>> import torch
        >>> unsure(torch.tensor([[0.6, 0.6, 0.8], [0.1, 0.1, 0.1]]).view(1, 2, 1, 3), torch.tensor([[[1, 0, 0]]]))
        tensor([[[False,  True, False]]])
    """
    best, score, _ = top_two(scores_BNHW)
    return (best + 1 != labels_BHW) & (score <= sure)


@precisely
def uncertainty(logits_BNHW: Tensor, labels_BHW: Tensor, sure: float = 0.7) -> Tensor:
    """(1 - a + b)^2 in unsure pixels, with a and b the highest and second highest score; 0 elsewhere (Adapter, AAAI 2025).

    Only b has a gradient: the second class is pushed down. A background pixel in which no class has a high score is
    unsure too, contributes about 1, and has almost no gradient.

    Args:
        logits_BNHW: full-resolution logits of N >= 2 classes, without background.
        labels_BHW: label of the class of channel c is c + 1.
        sure: score above which a pixel is sure.

    Returns:
        (B, H, W).

    Example:
        >>> import torch
        >>> uncertainty(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))
        tensor([[[1.]]])
    """
    scores = logits_BNHW.sigmoid()
    _, score, margin = top_two(scores)
    second = score - margin
    return ((1 - score.detach() + second).square()) * unsure(scores.detach(), labels_BHW, sure)

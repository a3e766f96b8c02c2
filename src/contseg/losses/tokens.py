"""Terms of MBS: guided distillation of logits, distances of patches, and tokens of classes that are far from each other."""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precisely


@precisely
def guided_distillation(student_BKHW: Tensor, teacher_BOHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Distillation over all outputs, in which labels of new classes take background's share of the teacher.

    The target q is the teacher's softmax for old outputs and 0 for new ones; where the label is a new class c, q_c is
    background's share and q_0 is 0. The loss of a pixel is -(1/K) sum_c q_c log softmax(x)_c.

    Args:
        student_BKHW: K > O logits.
        teacher_BOHW: logits, without gradient.
        labels_BHW: int64; only those of new classes, O to K - 1, are used.

    Returns:
        (B, H, W).

    Example:
        >>> logits = torch.tensor([2.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> [guided_distillation(logits, torch.zeros(1, 2, 1, 1), torch.tensor([[[label]]])).item() for label in (0, 2)]
        [0.4131..., 0.7465...]
    """
    old, count = teacher_BOHW.shape[1], student_BKHW.shape[1]
    log_student, shares = student_BKHW.log_softmax(dim=1), teacher_BOHW.softmax(dim=1)
    is_new = (labels_BHW >= old) & (labels_BHW < count)
    place = labels_BHW.where(is_new, 0).unsqueeze(1)
    moved = shares[:, 0] * log_student.gather(1, place).squeeze(1)
    return -(moved + (shares[:, 1:] * log_student[:, 1:old]).sum(dim=1)) / count


def patch_weights(labels_BHW: Tensor, teacher_BOhw: Tensor) -> Tensor:
    """How much each patch is held in place: 1 on old classes, 0 on new ones and ignored pixels, and on background the
    teacher's probability of background.

    Args:
        labels_BHW: int64 final labels, resized to the patches by nearest neighbour.
        teacher_BOhw: logits of the patches.

    Returns:
        (B, h, w).

    Example:
        >>> patch_weights(torch.tensor([[[0, 1, 2, 255]]]), torch.zeros(1, 2, 1, 4))
        tensor([[[0.5000, 1.0000, 0.0000, 0.0000]]])
    """
    near = functional.interpolate(labels_BHW.unsqueeze(1).double(), teacher_BOhw.shape[2:], mode="nearest").squeeze(1)
    background = teacher_BOhw.softmax(dim=1)[:, 0]
    is_old = (near > 0) & (near < teacher_BOhw.shape[1])
    return background.where(near == 0, is_old.to(background.dtype))


@precisely
def token_overlap(tokens_KC: Tensor, old_count: int) -> Tensor:
    """Mean absolute cosine of the token of each new class with those of all other classes, which have no gradient.

    Args:
        tokens_KC: learned tokens, background first.
        old_count: number of old classes, background included.

    Returns:
        (K_new, K - 1), whose mean is the loss.

    Example:
        >>> token_overlap(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), old_count=2)
        tensor([[1., 0.]])
    """
    unit = functional.normalize(tokens_KC, dim=1)
    cosines = (unit[old_count:] @ unit.detach().T).abs()
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)[old_count:]
    return cosines[others].view(len(cosines), -1)

"""Binary cross-entropy per output with the probabilities of a teacher as targets (LwF-MC)."""

from torch import Tensor
from torch.nn import functional

from contseg.data.classes import IGNORE
from contseg.precision import precisely


@precisely
def sigmoid_distillation(student_BKHW: Tensor, teacher_BOHW: Tensor) -> Tensor:
    """Mean over old outputs of the binary cross-entropy against sigmoid(x°): softplus(x_c) - sigmoid(x°_c) x_c.

    Args:
        student_BKHW: logits, K >= O.
        teacher_BOHW: logits, without gradient.

    Returns:
        (B, H, W).

    Example:
        >>> import torch
        >>> sigmoid_distillation(torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))
        tensor([[[0.6931]]])
    """
    old = student_BKHW[:, : teacher_BOHW.shape[1]]
    return (functional.softplus(old) - teacher_BOHW.sigmoid() * old).mean(dim=1)


@precisely
def disjoint_cross_entropy(logits_BKHW: Tensor, labels_BHW: Tensor, teacher_BOHW: Tensor, annotated_BK: Tensor) -> Tensor:
    """Binary cross-entropy summed over outputs; the target of an old output is the teacher's probability, not the label.

    Args:
        logits_BKHW: full-resolution logits.
        labels_BHW: int64 labels; at ignored pixels (255) only the teacher is used, and the target of new outputs is 0.
        teacher_BOHW: logits, without gradient.
        annotated_BK: bool, the classes whose labels are truth in each image; always true for new classes.

    Returns:
        (B, H, W).

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 3, 1, 1), torch.tensor([[[2]]])
        >>> disjoint_cross_entropy(logits, labels, torch.zeros(1, 2, 1, 1), torch.zeros(1, 3, dtype=torch.bool))
        tensor([[[2.0794]]])
    """
    old_classes = teacher_BOHW.shape[1]
    truth = annotated_BK.clone()
    truth[:, old_classes:] = True
    column = labels_BHW.where(labels_BHW != IGNORE, 0)
    labelled = truth.gather(1, column.flatten(1)).view_as(labels_BHW) & (labels_BHW != IGNORE)
    own = logits_BKHW.gather(1, column.unsqueeze(1)).squeeze(1).where(labelled, 0.0)
    targets = teacher_BOHW.sigmoid() * ~truth[:, :old_classes, None, None]
    return functional.softplus(logits_BKHW).sum(dim=1) - own - (targets * logits_BKHW[:, :old_classes]).sum(dim=1)

"""Confusion matrices: what was there against what was said."""

import torch
from torch import Tensor

from contseg.data.classes import IGNORE


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Pixel counts, (classes, classes) int64: rows are the truth, columns the prediction.

    Pixels whose label is 255, or a class that the model does not know (>= classes), are not counted.

    Args:
        labels, predictions: integer tensors of one shape; predictions in 0..classes-1.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1, 255]), torch.tensor([0, 1, 0, 1]), 2)
        tensor([[1, 0],
                [1, 1]])
    """
    assert classes <= IGNORE, "training ids are uint8 with 255 kept for ignore"
    bins = classes * classes
    truth = labels.long()
    cell = torch.where(truth < classes, truth * classes + predictions.long(), bins)
    return torch.bincount(cell.flatten(), minlength=bins + 1)[:-1].view(classes, classes)

"""Confusion matrices: truth against predictions."""

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.evaluation.metrics import BACKGROUND


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Pixel counts, (classes, classes) int64: rows are the truth, columns the prediction.

    Pixels whose label is 255, or beyond the outputs (>= classes), are not counted.

    Args:
        labels, predictions: integer tensors of the same shape; predictions in 0..classes-1.

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


def scored_labels(labels_BHW: Tensor, predictions_BHW: Tensor, annotated_BK: Tensor) -> Tensor:
    """Replace labels by 255 where a prediction is neither right nor wrong: the label is background, which may hide the
    predicted class, as this class is not annotated in the sample.

    Args:
        labels_BHW, predictions_BHW: integers; predictions in 0..K-1.
        annotated_BK: bool, classes that are annotated in each sample; the entry of background has no effect.

    Example:
        >>> predicted, marked = torch.tensor([[[0, 1, 2]]]), torch.tensor([[True, False, True]])
        >>> scored_labels(torch.tensor([[[0, 0, 0]]]), predicted, marked)
        tensor([[[  0, 255,   0]]])
    """
    if bool(annotated_BK[:, BACKGROUND + 1 :].all()):
        return labels_BHW
    marked = annotated_BK.gather(1, predictions_BHW.flatten(1)).view_as(predictions_BHW)
    hidden = (labels_BHW == BACKGROUND) & (predictions_BHW != BACKGROUND) & ~marked
    return labels_BHW.masked_fill(hidden, IGNORE)

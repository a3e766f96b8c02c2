"""Confusion matrices: truth against predictions."""

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.evaluation.metrics import BACKGROUND


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


def scored_labels(labels_BHW: Tensor, predictions_BHW: Tensor, annotated_BK: Tensor) -> Tensor:
    """The labels with 255 where a prediction is neither right nor wrong: background is labelled, and the predicted class is
    one that nobody marked in the sample, so that the label may hide it.

    Args:
        labels_BHW, predictions_BHW: integers; predictions in 0..K-1.
        annotated_BK: bool, the classes that were annotated in each sample; the entry of background has no effect.

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

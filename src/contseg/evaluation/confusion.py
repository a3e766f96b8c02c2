"""Confusion matrices: truth against predictions."""

import torch
from torch import Tensor

from contseg.data.classes import IGNORE, UNDECIDED
from contseg.evaluation.metrics import BACKGROUND

IGNORED_WARNING = "undecided pixels count neither as hits nor as misses, so the mIoU is that of the decided pixels only"
"""Given with `ignore_undecided`. The released code of SimCIS evaluates like this, and its published numbers may do so."""


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int, undecided: bool = False) -> Tensor:
    """Pixel counts, (classes, classes) int64: rows are the truth, columns the prediction.

    Pixels whose label is 255, or beyond the outputs (>= classes), are not counted.

    Args:
        labels, predictions: integer tensors of the same shape; predictions in 0..classes-1.
        undecided: predictions may be `UNDECIDED` too, and the result is (classes, classes + 1): the last column has the
            undecided pixels, which are misses of their class.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1, 255]), torch.tensor([0, 1, 0, 1]), 2)
        tensor([[1, 0],
                [1, 1]])
        >>> confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, -1]), 2, undecided=True)
        tensor([[1, 0, 0],
                [0, 0, 1]])
    """
    total = torch.zeros(1, classes, classes + undecided, dtype=torch.int64, device=labels.device)
    add_confusion(
        total, labels.reshape(1, -1), predictions.reshape(1, -1), torch.zeros(1, dtype=torch.int64, device=labels.device)
    )
    return total[0]


def add_confusion(total_DKK: Tensor, labels_BHW: Tensor, predictions_BHW: Tensor, places_B: Tensor) -> None:
    """Add the pixel counts of samples to matrices, without waiting for a GPU.

    Args:
        total_DKK: int64, as of `confusion_matrix`, one per domain; with a column more where pixels may be undecided.
        labels_BHW, predictions_BHW: as of `confusion_matrix`.
        places_B: the domain of each sample.

    Example:
        >>> total = torch.zeros(2, 2, 2, dtype=torch.int64)
        >>> add_confusion(total, torch.tensor([[0, 1], [1, 255]]), torch.tensor([[0, 1], [0, 1]]), torch.tensor([1, 0]))
        >>> total.tolist()
        [[[0, 0], [1, 0]], [[1, 0], [0, 1]]]
    """
    count, classes, columns = total_DKK.shape
    assert classes <= IGNORE, "training ids are uint8 with 255 kept for ignore"
    bins = count * classes * columns
    truth, answers = labels_BHW.flatten(1).long(), predictions_BHW.flatten(1)
    if columns > classes:
        answers = answers.masked_fill(answers == UNDECIDED, classes)
    rows = places_B.to(truth.device)[:, None] * classes + truth
    cells = torch.where(truth < classes, rows * columns + answers, bins).flatten()
    if cells.is_cuda:  # `bincount` waits for the greatest cell
        counts = cells.new_zeros(bins + 1).scatter_add_(0, cells, torch.ones_like(cells))
    else:
        counts = torch.bincount(cells, minlength=bins + 1)
    total_DKK += counts[:bins].view_as(total_DKK)


def scored_labels(labels_BHW: Tensor, predictions_BHW: Tensor, annotated_BK: Tensor) -> Tensor:
    """Replace labels by 255 where a prediction is neither right nor wrong: the label is background, which may hide the
    predicted class, as this class is not annotated in the sample.

    Args:
        labels_BHW, predictions_BHW: integers; predictions in 0..K-1, or `UNDECIDED`, which is always wrong.
        annotated_BK: bool, classes that are annotated in each sample; the entry of background has no effect.

    Example:
        >>> predicted, marked = torch.tensor([[[0, 1, 2]]]), torch.tensor([[True, False, True]])
        >>> scored_labels(torch.tensor([[[0, 0, 0]]]), predicted, marked)
        tensor([[[  0, 255,   0]]])
    """
    if not annotated_BK.is_cuda and bool(annotated_BK[:, BACKGROUND + 1 :].all()):  # a GPU would have to be waited for
        return labels_BHW
    marked = annotated_BK.gather(1, predictions_BHW.flatten(1).clamp_min(0)).view_as(predictions_BHW)
    hidden = (labels_BHW == BACKGROUND) & (predictions_BHW > BACKGROUND) & ~marked
    return labels_BHW.masked_fill(hidden, IGNORE)


def ignore_undecided(labels_BHW: Tensor, predictions_BHW: Tensor) -> Tensor:
    """Replace labels by 255 where the prediction is undecided, as the released code of SimCIS does; see `IGNORED_WARNING`.

    Example:
        >>> ignore_undecided(torch.tensor([3, 4]), torch.tensor([3, -1]))
        tensor([  3, 255])
    """
    return labels_BHW.masked_fill(predictions_BHW == UNDECIDED, IGNORE)

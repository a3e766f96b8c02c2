"""Pseudo-labels: background is replaced by the class that the teacher predicts with confidence.

The rules for confidence are in `losses.confidence`: entropy below a median (true or as released), a threshold, a threshold
per class, a margin over the second class.
"""

from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.scenarios.batch import Batch


def pseudo_labelled(
    batch: Batch, predicted_BHW: Tensor, confident_BHW: Tensor, old_count: int, empty_weight: float = 1.0
) -> Batch:
    """Batch in which background and unannotated old labels become the confident predictions of the teacher, or ignored.

    Args:
        predicted_BHW: (B, H, W) int64, the teacher's classes.
        confident_BHW: (B, H, W) bool, where they are used.
        old_count: outputs of the teacher.
        empty_weight: weight of an image without a replaceable pixel.

    Returns:
        the batch with weights: kept pixels / (replaceable pixels + 1e-6) per image, and 1 for an image in which an old
        class was annotated.

    Example:
        >>> import torch
        >>> batch = Batch(torch.zeros(1, 3, 1, 3), torch.tensor([[[0, 0, 2]]]), ("a",), torch.zeros(1, 3, dtype=torch.bool))
        >>> done = pseudo_labelled(batch, torch.tensor([[[1, 1, 0]]]), torch.tensor([[[True, False, True]]]), 2)
        >>> done.labels, done.weights
        (tensor([[[  1, 255,   2]]]), tensor([0.5000]))
    """
    labels, annotated = batch.labels, batch.annotated
    marked = annotated.gather(1, labels.where(labels < old_count, 0).flatten(1)).view_as(labels)
    all_marked = annotated[:, 1:old_count].all(dim=1)[:, None, None] if old_count > 1 else marked.new_zeros(())
    replaceable = (labels < old_count) & ~marked & ~((labels == 0) & all_marked)
    # if a class was annotated in the image, a background label means that it is absent there
    contradicts = annotated.gather(1, predicted_BHW.flatten(1)).view_as(labels) & (predicted_BHW > 0)
    confident_BHW = confident_BHW & ~contradicts
    kept = (replaceable & confident_BHW).flatten(1).sum(dim=1)
    total = replaceable.flatten(1).sum(dim=1)
    weights = (kept / (total + 1e-6)).where(total > 0, empty_weight)
    weights = weights.where(~annotated[:, 1:old_count].any(dim=1), 1.0)
    return batch.relabelled(predicted_BHW.where(confident_BHW, IGNORE).where(replaceable, labels), weights)


def fill_in(batch: Batch, predicted_BHW: Tensor, confident_BHW: Tensor, foreground: int) -> Batch:
    """Batch in which background (and unknown) becomes the teacher's class where it is confident (SSUL, IDEC, LAG).

    Other labels are kept, including 255. If a class was annotated in an image, a background label means that it is absent
    there, so it is no pseudo-label in that image.

    Args:
        predicted_BHW: (B, H, W) int64, the teacher's outputs.
        confident_BHW: (B, H, W) bool, where they are used.
        foreground: the first output that is a class, 1, or 2 after an output "unknown".

    Example:
        >>> import torch
        >>> labels, marked = torch.tensor([[[0, 1, 1, 4]]]), torch.zeros(1, 5, dtype=torch.bool)
        >>> batch = Batch(torch.zeros(1, 3, 1, 4), labels, ("a",), marked)
        >>> fill_in(batch, torch.tensor([[[3, 3, 1, 2]]]), torch.tensor([[[True, False, True, True]]]), 2).labels
        tensor([[[3, 1, 1, 4]]])
    """
    marked = batch.annotated.gather(1, predicted_BHW.flatten(1)).view_as(batch.labels)
    filled = (batch.labels < foreground) & (predicted_BHW >= foreground) & confident_BHW & ~marked
    return batch.relabelled(predicted_BHW.where(filled, batch.labels), batch.weights)

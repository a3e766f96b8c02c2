"""What a teacher's opinion makes of labels that say too little. Where it is sure is for the method to say.

`losses.confidence` holds the rules for that: entropy below a median (true or as released), a threshold, one threshold per
class, a margin over the second class.
"""

from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.scenarios.batch import Batch


def pseudo_labelled(batch: Batch, said_BHW: Tensor, sure_BHW: Tensor, old_count: int, empty_weight: float = 1.0) -> Batch:
    """The batch with unannotated old labels and background replaced by what the teacher says where it is sure, else ignored.

    Args:
        said_BHW: the teacher's classes.
        sure_BHW: where it is believed.
        old_count: outputs of the teacher.
        empty_weight: weight of an image without a replaceable pixel.

    Returns:
        the batch with weights: kept pixels / (replaceable pixels + 1e-6) per image, and 1 for an image in which an old
        class was annotated, whose labels are no guesses.

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
    # where an annotator marked a class, a background label says that it is not there
    contradicts = annotated.gather(1, said_BHW.flatten(1)).view_as(labels) & (said_BHW > 0)
    sure_BHW = sure_BHW & ~contradicts
    kept = (replaceable & sure_BHW).flatten(1).sum(dim=1)
    total = replaceable.flatten(1).sum(dim=1)
    weights = (kept / (total + 1e-6)).where(total > 0, empty_weight)
    weights = weights.where(~annotated[:, 1:old_count].any(dim=1), 1.0)
    return batch.relabelled(said_BHW.where(sure_BHW, IGNORE).where(replaceable, labels), weights)


def fill_in(batch: Batch, said_BHW: Tensor, sure_BHW: Tensor, foreground: int) -> Batch:
    """The batch with background (and unknown) replaced by the class that the teacher surely says (SSUL, IDEC, LAG).

    y' = said where y is background or unknown, `said` is a class and the teacher is sure; all else stays, 255 too. Where
    an annotator marked a class, a background label says that it is not there, so no pseudo label says it.

    Args:
        said_BHW: the teacher's outputs.
        sure_BHW: where it is believed.
        foreground: the first output that is a class, 1, or 2 after an output "unknown".

    Example:
        >>> import torch
        >>> labels, marked = torch.tensor([[[0, 1, 1, 4]]]), torch.zeros(1, 5, dtype=torch.bool)
        >>> batch = Batch(torch.zeros(1, 3, 1, 4), labels, ("a",), marked)
        >>> fill_in(batch, torch.tensor([[[3, 3, 1, 2]]]), torch.tensor([[[True, False, True, True]]]), 2).labels
        tensor([[[3, 1, 1, 4]]])
    """
    marked = batch.annotated.gather(1, said_BHW.flatten(1)).view_as(batch.labels)
    filled = (batch.labels < foreground) & (said_BHW >= foreground) & sure_BHW & ~marked
    return batch.relabelled(said_BHW.where(filled, batch.labels), batch.weights)

"""Class representations and their relations: the parts of IDRNet without parameters.

Everything is in float32 or better, also under autocast, without loops over classes and without device synchronisation.
Memory grows with classes + pixels (times channels), in addition to the tables.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FORBIDDEN = -1e16
"""Value of a relation that is ignored. Finite, so that a row of ignored relations becomes uniform."""


@dataclass(frozen=True)
class Assignment:
    """The class of each pixel by the stage-1 logits.

    Args:
        classes: (B, N) int64, the class of each pixel.
        weights: (B, N), softmax of the pixel's own logit over all pixels of its class in its image.
        present: (B, K) bool, classes with at least one pixel.
    """

    classes: Tensor
    weights: Tensor
    present: Tensor


def assign(logits_BKHW: Tensor, allowed_K: Tensor | None = None) -> Assignment:
    """Hard assignment of pixels to classes: arg max over the allowed ones (the lowest in ties).

    Gradients flow to the winning logits through `weights`.

    Args:
        allowed_K: bool, classes that can be assigned; default: all.

    Example:
        >>> made = assign(torch.tensor([[[[0.0, 1.0]], [[2.0, 0.0]], [[-1.0, 0.0]]]]))
        >>> made.classes, made.present
        (tensor([[1, 0]]), tensor([[ True,  True, False]]))
    """
    with torch.autocast(logits_BKHW.device.type, enabled=False):
        logits_BKN = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32)).flatten(2)
        count = logits_BKN.shape[1]
        considered = logits_BKN.detach()
        if allowed_K is not None:
            considered = considered.masked_fill(~allowed_K[None, :, None], -torch.inf)
        classes = considered.argmax(dim=1)
        own = logits_BKN.gather(1, classes.unsqueeze(1)).squeeze(1)
        empty = own.new_full((own.shape[0], count), -torch.inf)
        highest = empty.scatter_reduce(1, classes, own.detach(), "amax")
        present = highest > -torch.inf
        raised = (own - highest.gather(1, classes)).exp()
        total = torch.zeros_like(empty).scatter_add(1, classes, raised)
        return Assignment(classes, raised / total.gather(1, classes), present)


def class_means(features_BCHW: Tensor, assignment: Assignment) -> Tensor:
    """z_k = sum over the pixels of class k of weight x feature: (B, K, C), 0 for absent classes."""
    batch, channels = features_BCHW.shape[:2]
    count = assignment.present.shape[1]
    with torch.autocast(features_BCHW.device.type, enabled=False):
        pixels_BNC = features_BCHW.to(assignment.weights.dtype).flatten(2).transpose(1, 2)
        weighted = pixels_BNC * assignment.weights.unsqueeze(2)
        place = assignment.classes + count * torch.arange(batch, device=weighted.device).unsqueeze(1)
        zeros = weighted.new_zeros(batch * count, channels)
        return zeros.index_add(0, place.flatten(), weighted.reshape(-1, channels)).view(batch, count, channels)


def relation_weights(relations_KK: Tensor, present_BK: Tensor, drop: bool) -> Tensor:
    """Softmax of the rows of a relation table over the present columns: (B, K, K); absent columns are 0.

    Row i receives, column j sends. If no class is present, everything is 0.

    Args:
        drop: whether to ignore relations that are not positive.
    """
    table = relations_KK.masked_fill(relations_KK <= 0, FORBIDDEN) if drop else relations_KK
    masked = table.unsqueeze(0).masked_fill(~present_BK.unsqueeze(1), -torch.inf)
    highest = masked.amax(dim=2, keepdim=True).nan_to_num(neginf=0.0)
    raised = (masked - highest).exp()
    return raised / raised.sum(dim=2, keepdim=True).clamp(min=torch.finfo(raised.dtype).tiny)


def aggregate(
    means_BKC: Tensor, assignment: Assignment, relations_KK: Tensor, drop: bool, removed_B: Tensor | None = None
) -> Tensor:
    """Aggregated representations that each pixel's class receives from the classes of its image: (B, C, N).

    e_i = sum_j W_ij z_j at every pixel of class i; 0 at the pixels of a removed class, which does not send either.

    Args:
        means_BKC: result of `class_means`.
        relations_KK: a relation table.
        drop: see `relation_weights`.
        removed_B: int64, one class to remove per image; default: none.

    Example:
        >>> made = assign(torch.tensor([[[[0.0, 1.0]], [[2.0, 0.0]]]]))
        >>> aggregate(torch.tensor([[[1.0], [10.0]]]), made, torch.eye(2), drop=True)
        tensor([[[10.,  1.]]])
    """
    present = assignment.present
    if removed_B is not None:
        present = present & ~torch.nn.functional.one_hot(removed_B, present.shape[1]).bool()
    with torch.autocast(means_BKC.device.type, enabled=False):
        # in float64, so that classes without contribution (grown, not seen yet) do not change the rounding
        weights = relation_weights(relations_KK.double(), present, drop)
        received = (weights @ means_BKC.double()).to(means_BKC.dtype) * present.unsqueeze(2)
        channels = means_BKC.shape[2]
        return received.gather(1, assignment.classes.unsqueeze(2).expand(-1, -1, channels)).transpose(1, 2)

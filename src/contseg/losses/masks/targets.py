"""The masks that an image has to be divided into: one per class that is present and annotated."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from contseg.ranks import ALONE, Ranks


class MaskTargets(NamedTuple):
    """The targets of one image.

    Args:
        classes: (T,) int64, output of each mask.
        masks: (T, H, W) bool.
    """

    classes: Tensor
    masks: Tensor

    def followed_by(self, others: "MaskTargets") -> "MaskTargets":
        """These targets, then others, such as pseudo labels."""
        return MaskTargets(torch.cat([self.classes, others.classes]), torch.cat([self.masks, others.masks]))

    def covered(self) -> Tensor:
        """(H, W) bool, whether a pixel is in any mask."""
        return self.masks.any(dim=0)


def targets(labels_BHW: Tensor, annotated_BK: Tensor) -> list[MaskTargets]:
    """One mask per class that is present in an image and annotated there, in the order of outputs.

    Everything else is no mask: ignored pixels, and pixels of a label that is not annotated, such as a background that
    hides classes. An annotated background is a class with a mask like any other.

    Args:
        labels_BHW: int64 outputs, 255 ignored.
        annotated_BK: bool, which of the K outputs are annotated in each image.

    Example:
        >>> labels = torch.tensor([[[0, 2], [1, 255]]])
        >>> [one] = targets(labels, torch.tensor([[False, True, True]]))
        >>> one.classes.tolist(), one.masks.long().tolist()
        ([1, 2], [[[0, 0], [1, 0]], [[0, 1], [0, 0]]])
    """
    count = annotated_BK.shape[1]
    flat = labels_BHW.flatten(1).long().clamp(0, count)
    present = annotated_BK.new_zeros(len(flat), count + 1).scatter_(1, flat, True)[:, :count] & annotated_BK
    rows = present.cpu()
    found = []
    for labels, row in zip(labels_BHW, rows, strict=True):
        classes = row.nonzero()[:, 0].to(labels.device, non_blocking=True)
        found.append(MaskTargets(classes, labels == classes[:, None, None]))
    return found


def number_of_masks(counts: Sequence[int], like: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """N, by which sums over masks are divided: the masks of the whole batch, over all ranks / number of ranks, at least 1.

    Args:
        counts: masks of each image on this rank.
        like: of the dtype and the device of the result.

    Example:
        >>> number_of_masks([2, 3], torch.zeros(())), number_of_masks([0], torch.zeros(()))
        (tensor(5.), tensor(1.))
    """
    return (ranks.sum(like.new_tensor(float(sum(counts)))) / ranks.count).clamp_min(1)

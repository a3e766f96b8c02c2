"""The segments of a step: what a network that classifies masks has to find, and what panoptic quality compares it with."""

from dataclasses import replace

import torch
from torch import Tensor

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.segments import CROWD, SegmentMap
from contseg.scenarios.batch import Batch

_IMAGE, _CLASS = 1 << 40, 1 << 20


def segment_targets(
    labels_BHW: Tensor, instances_BHW: Tensor | None, annotated_BK: Tensor, leaked: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """The segments of each image that have a mask: one per object of a thing and one per other class, in the order of both.

    Everything else is no mask: ignored pixels, crowds, and labels that are not annotated, such as a background that hides
    classes.

    Args:
        labels_BHW: outputs, 255 ignored.
        instances_BHW: as of `Batch`; None: one mask per class.
        annotated_BK: bool, which of the K outputs are annotated in each image.
        leaked: whether label K has a mask too: the class that `scenario.variant: released` annotates before it is learned.

    Returns:
        for each image the outputs (T,) int64 and the masks (T, H, W) bool.

    Example:
        >>> labels, numbers = torch.tensor([[[0, 1, 2, 2]]]), torch.tensor([[[0, 0, 1, 5]]])
        >>> [(classes, masks)] = segment_targets(labels, numbers, torch.tensor([[False, True, True]]))
        >>> classes.tolist(), masks.long().tolist()
        ([1, 2, 2], [[[0, 1, 0, 0]], [[0, 0, 1, 0]], [[0, 0, 0, 1]]])
    """
    if leaked:
        annotated_BK = torch.cat([annotated_BK, annotated_BK.new_ones(len(annotated_BK), 1)], dim=1)
    labels, count = labels_BHW.long(), annotated_BK.shape[1]
    inside = labels.clamp(0, count - 1)
    shown = annotated_BK.gather(1, inside.flatten(1)).view_as(labels) & (labels == inside)
    codes = inside * _CLASS
    if instances_BHW is not None:
        shown &= instances_BHW != CROWD
        codes = codes + instances_BHW
    codes = torch.where(shown, codes, -1)
    places = torch.arange(len(codes), device=codes.device)[:, None] * _IMAGE
    found = torch.where(shown.flatten(1), codes.flatten(1) + places, -1).unique().cpu()  # one wait for the whole batch
    found = found[found >= 0]
    targets = []
    for place, image in enumerate(codes):
        own = (found[found // _IMAGE == place] % _IMAGE).to(codes.device, non_blocking=True)
        targets.append((own // _CLASS, image == own[:, None, None]))
    return targets


def with_targets(batch: Batch, leaked: bool = False) -> Batch:
    """The batch with the targets that follow from its labels, unless it has some already.

    Args:
        leaked: as of `segment_targets`.
    """
    if batch.targets is not None:
        return batch
    return replace(batch, targets=tuple(segment_targets(batch.labels, batch.instances, batch.annotated, leaked)))


def true_segments(batch: Batch, classes: ClassTable) -> list[SegmentMap]:
    """The segments of the images of a test batch.

    Void are 255, labels beyond the outputs, and a background that is not annotated: what is unlabelled is neither right nor
    wrong. An annotated background is a class with a segment.

    Args:
        classes: of the outputs, `Step.table`.

    Example:
        >>> images, labels = torch.zeros(1, 3, 1, 3, dtype=torch.uint8), torch.tensor([[[0, 1, 255]]])
        >>> batch = Batch(images, labels, ("a",), torch.ones(1, 2, dtype=torch.bool))
        >>> tables = (ClassTable.of(["background", "cat"], kind) for kind in ("annotated", "unlabelled"))
        >>> [true_segments(batch, table)[0].classes.tolist() for table in tables]
        [[[0, 1, 255]], [[255, 1, 255]]]
    """
    labels = batch.labels.long()
    for output in classes.void_outputs:
        labels = labels.masked_fill(labels == output, IGNORE)
    instances = torch.zeros_like(labels) if batch.instances is None else batch.instances
    pairs = zip(labels.cpu().numpy(), instances.cpu().numpy(), strict=True)
    return [SegmentMap(own, numbers) for own, numbers in pairs]

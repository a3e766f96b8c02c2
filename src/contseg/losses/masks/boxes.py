"""Boxes around masks, and how well two boxes agree."""

import torch
from torch import Tensor

from contseg.precision import precisely

EPSILON = 1e-6
"""Added to the divisor of each ratio of areas, as SimCIS does."""


def boxes_of(masks_THW: Tensor) -> Tensor:
    """The smallest box around each mask, (T, 4) float32: centre x, y, width, height, relative to the image; 0 if empty.

    A box ends after its last pixel.

    Example:
        >>> mask = torch.zeros(1, 4, 8, dtype=torch.bool)
        >>> mask[:, 1:3, 2:4] = True
        >>> boxes_of(mask)
        tensor([[0.3750, 0.5000, 0.2500, 0.5000]])
    """
    first_x, last_x = _span(masks_THW.any(dim=1))
    first_y, last_y = _span(masks_THW.any(dim=2))
    height, width = masks_THW.shape[1:]
    sides = [(first_x + last_x) / 2 / width, (first_y + last_y) / 2 / height]
    return torch.stack([*sides, (last_x - first_x) / width, (last_y - first_y) / height], dim=1)


def _span(marks_TN: Tensor) -> tuple[Tensor, Tensor]:
    """The first marked place, and the one after the last; 0 and 0 without any."""
    places = torch.arange(marks_TN.shape[1], device=marks_TN.device)
    count = marks_TN.shape[1]
    first = torch.where(marks_TN, places, count).amin(dim=1)
    after = torch.where(marks_TN, places + 1, 0).amax(dim=1)
    return torch.where(after > 0, first, 0).float(), after.float()


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, y, width, height to left, top, right, bottom.

    Example:
        >>> corners(torch.tensor([0.5, 0.5, 0.5, 1.0]))
        tensor([0.2500, 0.0000, 0.7500, 1.0000])
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


@precisely
def generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised IoU of boxes as `corners`, (...): IoU minus the share of the box around both that neither covers.

    Example:
        >>> box = torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> generalised_iou(box, box), generalised_iou(box, box + 2)
        (tensor(1.0000), tensor(-0.7778))
    """
    area, area_other = _area(one[..., :2], one[..., 2:]), _area(other[..., :2], other[..., 2:])
    both = _area(torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:]))
    union = area + area_other - both
    around = _area(torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:]))
    return both / (union + EPSILON) - (around - union) / (around + EPSILON)


def _area(top_left: Tensor, bottom_right: Tensor) -> Tensor:
    return (bottom_right - top_left).clamp_min(0).prod(dim=-1)

"""Points of masks: drawing them, the values of maps there, and which points a loss uses.

A mask loss on a few thousand points needs memory for queries and points only, not for masks at full size. All functions
take the points as arguments, so the same points give the same loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precise

OVERSAMPLE = 3
"""Candidates per point of a loss, of which the most uncertain are used."""
IMPORTANT = 0.75
"""Share of the points of a loss that are chosen for their uncertainty."""


@dataclass(frozen=True)
class LayerPoints:
    """The uniform points (x, y) in [0, 1] of one layer's prediction.

    Args:
        matching: (B, P, 2), shared by all queries and targets of an image.
        candidates: (M, 3 P, 2), for each of M matched pairs.
        random: (M, P - int(0.75 P), 2), used as they are.
    """

    matching: Tensor
    candidates: Tensor
    random: Tensor


def draw_points(
    generator: torch.Generator, counts: Sequence[int], queries: int, points: int, like: Tensor | None = None
) -> LayerPoints:
    """Draw the points of one layer: those of the matching first, then candidates, then random ones.

    Args:
        generator: where it is (CPU or GPU), the points are drawn.
        counts: targets of each image.
        queries: Q; an image has as many pairs as it has targets, at most Q.
        points: P.
        like: of the dtype and the device that the points shall have; default: float32, where the generator is.

    Example:
        >>> drawn = draw_points(torch.Generator().manual_seed(0), [2, 0, 9], queries=5, points=8)
        >>> [tuple(one.shape) for one in (drawn.matching, drawn.candidates, drawn.random)]
        [(3, 8, 2), (7, 24, 2), (7, 2, 2)]
    """
    pairs = sum(min(count, queries) for count in counts)
    shapes = ((len(counts), points), (pairs, OVERSAMPLE * points), (pairs, points - int(IMPORTANT * points)))
    drawn = (torch.rand(*shape, 2, generator=generator, device=generator.device) for shape in shapes)
    return LayerPoints(*(one if like is None else one.to(like, non_blocking=True) for one in drawn))


def values_at(maps_NCHW: Tensor, points_NP2: Tensor) -> Tensor:
    """Values of maps at points (x, y) in [0, 1], bilinear between the centres of pixels: (N, C, P).

    Outside is 0, so values within half a pixel of the border are damped. Masks may be bool: only the pixels around the
    points become numbers.

    Example:
        >>> mask = torch.tensor([[[[0.0, 4.0]]]])
        >>> values_at(mask, torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.75, 0.5], [1.0, 0.5]]]))
        tensor([[[0., 2., 4., 2.]]])
        >>> values_at(mask > 0, torch.tensor([[[0.5, 0.5]]]))
        tensor([[[0.5000]]])
    """
    if maps_NCHW.is_floating_point():
        maps = precise(maps_NCHW)
        grid = points_NP2.to(maps.dtype)[:, None] * 2 - 1
        return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, :, 0]
    return _values_of_masks(maps_NCHW, precise(points_NP2))


def _values_of_masks(masks_NCHW: Tensor, points_NP2: Tensor) -> Tensor:
    """`values_at` of a bool mask, without a copy of it as numbers."""
    height, width = masks_NCHW.shape[2:]
    flat, total = masks_NCHW.flatten(2), points_NP2.new_zeros(())
    x, y = points_NP2[..., 0] * width - 0.5, points_NP2[..., 1] * height - 0.5
    left, above = x.floor(), y.floor()
    for row in (above, above + 1):
        for column in (left, left + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - (row - y).abs()) * (1 - (column - x).abs()) * inside
            place = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            value = flat.gather(2, place[:, None].expand(-1, flat.shape[1], -1))
            total = total + weight[:, None] * value
    return total


def uncertain_points(certainty_MC: Tensor, candidates_MC2: Tensor, random_MR2: Tensor) -> Tensor:
    """The points of a loss, (M, P, 2): the least certain candidates in no order, followed by the random points.

    Args:
        certainty_MC: of the candidates, such as the absolute logit there.

    Example:
        >>> candidates = torch.tensor([[[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]])
        >>> uncertain_points(torch.tensor([[5.0, 1.0, 2.0]]), candidates, torch.zeros(1, 0, 2))
        tensor([[[0.2000, 0.2000]]])
    """
    count = certainty_MC.shape[1] // OVERSAMPLE - random_MR2.shape[1]
    chosen = certainty_MC.topk(count, dim=1, largest=False, sorted=False).indices
    return torch.cat([candidates_MC2.gather(1, chosen[..., None].expand(-1, -1, 2)), random_MR2], dim=1)

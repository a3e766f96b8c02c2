"""Points of masks: drawing them, the values of maps there, and which points a loss uses.

A mask loss on a few thousand points needs memory for queries and points only, not for masks at full size. All functions
take the points as arguments, so the same points give the same loss.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precise

OVERSAMPLE = 3
"""Candidates per point of a loss, of which the most uncertain are used."""
IMPORTANT = 0.75
"""Share of the points of a loss that are chosen for their uncertainty."""


PIECE = {"cpu": 1 << 17, "cuda": 1 << 25}
"""Numbers that are computed together."""


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
    """Values of maps at points (x, y) within [0, 1], bilinear between the centres of pixels: (N, C, P).

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
    points = precise(points_NP2)
    masks = functional.pad(maps_NCHW, (1, 1, 1, 1)).flatten(2)
    total = torch.zeros((), dtype=points.dtype, device=points.device)
    for places, weights in _corners(points, maps_NCHW.shape[2], maps_NCHW.shape[3]):
        around = masks.gather(2, places[:, None].expand(-1, masks.shape[1], -1))
        total = total + around * weights[:, None]
    return total


@torch.no_grad()
def compared(maps_Qhw: Tensor, masks_THW: Tensor, points_P2: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Values of the maps and of the target masks of one image at the same points, in pieces and without gradients.

    A piece fits the cache of a processor, and a point reads the values of all maps at once.

    Yields:
        (R, Q) and (T, R) for R of the points.

    Example:
        >>> maps, masks, points = torch.rand(30, 8, 8), torch.ones(2, 16, 16, dtype=torch.bool), torch.rand(50, 2)
        >>> [(values, truth)] = compared(maps, masks, points)
        >>> torch.allclose(values.T, values_at(maps[None], points[None])[0], atol=1e-6), truth.shape
        (True, torch.Size([2, 50]))
    """
    maps = functional.pad(precise(maps_Qhw), (1, 1, 1, 1))
    table = maps.flatten(1).T.contiguous()
    for points in points_P2.to(table).split(_piece(table)):
        places, weights = (torch.stack(each, dim=1) for each in zip(*_corners(points, *maps_Qhw.shape[1:]), strict=True))
        values = functional.embedding_bag(places, table, mode="sum", per_sample_weights=weights)
        yield values, values_at(masks_THW[None], points[None])[0]


def _piece(table_NQ: Tensor) -> int:
    """Points of a piece."""
    return max(1, PIECE.get(table_NQ.device.type, PIECE["cuda"]) // max(1, table_NQ.shape[1]))


def _corners(points: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
    """The four pixels around each point (..., 2): (place, weight) each, (...).

    Places are those of a flattened map with a border of zeros, one pixel wide.
    """
    x, y = points[..., 0] * width + 0.5, points[..., 1] * height + 0.5
    left, above = x.floor(), y.floor()
    right, below = x - left, y - above
    both, wide = right * below, width + 2
    place = left.long() + wide * above.long()
    return [
        (place, 1 - right - below + both),
        (place + 1, right - both),
        (place + wide, below - both),
        (place + wide + 1, both),
    ]


@torch.no_grad()
def uncertain_points(
    maps_Mhw: Tensor, candidates_MC2: Tensor, random_MR2: Tensor, certainty: Callable[[Tensor], Tensor] = torch.abs
) -> Tensor:
    """The points of a loss, (M, P, 2): the least certain candidates in no order, followed by the random points.

    Args:
        maps_Mhw: of each pair, interpolated at its candidates.
        certainty: of the interpolated values.

    Example:
        >>> candidates = torch.tensor([[[0.25, 0.5], [0.75, 0.5], [0.25, 0.5]]])
        >>> uncertain_points(torch.tensor([[[3.0, -1.0]]]), candidates, torch.zeros(1, 0, 2))
        tensor([[[0.7500, 0.5000]]])
    """
    count = candidates_MC2.shape[1] // OVERSAMPLE - random_MR2.shape[1]
    found = [random_MR2[:0].new_empty(0, count, 2)]
    together = max(1, PIECE.get(maps_Mhw.device.type, PIECE["cuda"]) // max(1, candidates_MC2.shape[1]))
    for maps, candidates in zip(maps_Mhw.split(together), candidates_MC2.split(together), strict=True):
        values = certainty(values_at(maps[:, None], candidates)[:, 0])
        chosen = values.topk(count, dim=1, largest=False, sorted=False).indices
        found.append(candidates.gather(1, chosen[..., None].expand(-1, -1, 2)))
    return torch.cat([torch.cat(found), random_MR2], dim=1)

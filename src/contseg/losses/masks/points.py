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
    places, weights = _corners(precise(points_NP2), maps_NCHW.shape[2], maps_NCHW.shape[3])
    around = [masks[:, place] for masks, place in zip(maps_NCHW.flatten(2), places, strict=True)]
    return (torch.stack(around) * weights[:, None]).sum(dim=3)


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
    table = precise(maps_Qhw).flatten(1).T.contiguous()
    for points in points_P2.to(table).split(_piece(table)):
        [places], [weights] = _corners(points[None], *maps_Qhw.shape[1:])
        values = functional.embedding_bag(places, table, mode="sum", per_sample_weights=weights)
        yield values, values_at(masks_THW[None], points[None])[0]


def _piece(table_NQ: Tensor) -> int:
    """Points of a piece."""
    return max(1, PIECE.get(table_NQ.device.type, PIECE["cuda"]) // max(1, table_NQ.shape[1]))


def _corners(points_NP2: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels around each point in a flattened map, (N, P, 4), and their weights, 0 outside."""
    x, y = points_NP2[..., 0] * width - 0.5, points_NP2[..., 1] * height - 0.5
    left, above = x.floor(), y.floor()
    right_share, below_share = x - left, y - above
    places, weights = [], []
    for row, of_row in ((above, 1 - below_share), (above + 1, below_share)):
        of_row = of_row * ((row >= 0) & (row < height))
        start = row.clamp(0, height - 1) * width
        for column, of_column in ((left, 1 - right_share), (left + 1, right_share)):
            places.append(start + column.clamp(0, width - 1))
            weights.append(of_row * of_column * ((column >= 0) & (column < width)))
    return torch.stack(places, dim=-1).long(), torch.stack(weights, dim=-1)


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

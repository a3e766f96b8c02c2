"""Local pooled outputs distillation (PLOP, Douillard et al., CVPR 2021)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from contseg.losses.pooled import pooled_distance
from contseg.precision import precisely

Regions = Literal["fit", "square"]
LARGE = 1 << 18
"""Numbers in a map from which its distance is computed without the embedding, which rounds differently."""


@precisely
def local_pod_embedding(map_BCHW: Tensor, scales: Sequence[int] = (1, 2, 4), regions: Regions = "fit") -> Tensor:
    """Strip averages of a map at several scales (PLOP, eq. 5 and 6).

    The map is cut into s x s regions for each scale s; of each region the mean over columns (C x rows values) is
    followed by the mean over rows (C x columns values). Regions run over rows first, then columns.

    Args:
        map_BCHW: a feature map; squared beforehand by the method.
        scales: numbers of regions per side.
        regions: `fit` uses regions of (H // s) x (W // s) and skips scales finer than the map. `square` uses W // s for both
            sides, as the released code does. Rows beyond s * (W // s) are then unused, and a map that is wider than high
            has too few rows (the mean of an empty region is NaN).

    Returns:
        (B, M).

    Example:
        >>> local_pod_embedding(torch.ones(2, 3, 8, 8)).shape  # 3 * (8 + 8) * (1 + 2 + 4)
        torch.Size([2, 336])
    """
    parts = []
    height, width = map_BCHW.shape[2:]
    for scale in scales:
        columns = width // scale
        rows = height // scale if regions == "fit" else columns
        if regions == "fit" and not (rows and columns):
            continue  # the map is smaller than the grid of this scale
        if rows * scale <= height:
            cut = map_BCHW[:, :, : rows * scale, : columns * scale]
            cut_BCsRsL = cut.unflatten(2, (scale, rows)).unflatten(4, (scale, columns))
            over_columns = cut_BCsRsL.mean(dim=5).permute(0, 2, 4, 1, 3)  # B, s, s, C, R
            over_rows = cut_BCsRsL.mean(dim=3).permute(0, 2, 3, 1, 4)  # B, s, s, C, L
            parts.append(torch.cat([over_columns.flatten(3), over_rows.flatten(3)], dim=3).flatten(1))
        else:
            parts.extend(_truncated_regions(map_BCHW, scale, columns))
    return torch.cat(parts, dim=1)


def _truncated_regions(map_BCHW: Tensor, scale: int, side: int) -> list[Tensor]:
    """Square regions, cut off at the lower edge of the map; the mean of a region without rows is NaN."""
    strips = []
    for i in range(scale):
        for j in range(scale):
            region = map_BCHW[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
            strips += [region.mean(dim=3).flatten(1), region.mean(dim=2).flatten(1)]
    return strips


def whole_regions(size: tuple[int, int], scales: Sequence[int], regions: Regions) -> tuple[tuple[int, int, int], ...] | None:
    """Scale, rows and columns of the regions of each scale; None if some are cut off or empty, see `local_pod_embedding`.

    Example:
        >>> whole_regions((8, 9), (1, 2, 16), "fit"), whole_regions((4, 9), (2,), "square")
        (((1, 8, 9), (2, 4, 4)), None)
    """
    height, width = size
    found = []
    for scale in scales:
        columns = width // scale
        rows = height // scale if regions == "fit" else columns
        if regions == "fit" and not (rows and columns):
            continue
        if rows * scale > height or not columns:
            return None
        found.append((scale, rows, columns))
    return tuple(found) or None


@precisely
def local_pod_distance(
    old_BCHW: Tensor, new_BCHW: Tensor, regions: Regions = "fit", scales: Sequence[int] = (1, 2, 4)
) -> Tensor:
    """|| Psi(old ** 2) - Psi(new ** 2) ||_2 per image, (B,).

    Psi is linear, so the difference of the squares is embedded once. Large maps are not embedded, see `pooled_distance`.
    """
    size = (new_BCHW.shape[2], new_BCHW.shape[3])
    grids = whole_regions(size, scales, regions)
    if new_BCHW.numel() >= LARGE and grids is not None and not old_BCHW.requires_grad:
        return pooled_distance(old_BCHW, new_BCHW, grids)
    difference = local_pod_embedding(old_BCHW.square() - new_BCHW.square(), scales, regions)
    return torch.linalg.vector_norm(difference, dim=1)


@precisely
def fold_new_classes(logits_BKHW: Tensor, old_classes: int) -> Tensor:
    """Logits of the old classes, with those of new classes added to background, as the teacher has them in background.

    Example:
        >>> fold_new_classes(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1), old_classes=2).flatten()
        tensor([4., 2.])
    """
    background = logits_BKHW[:, :1] + logits_BKHW[:, old_classes:].sum(dim=1, keepdim=True)
    return torch.cat([background, logits_BKHW[:, 1:old_classes]], dim=1)


def local_pod_loss(
    old_maps: Sequence[Tensor],
    new_maps: Sequence[Tensor],
    factors: Sequence[float],
    growth: float,
    regions: Regions = "fit",
    scales: Sequence[int] = (1, 2, 4),
) -> Tensor:
    """(1/L) sum_l factor_l * growth * mean_b distance_l (PLOP, eq. 7 with the adaptive scheduling).

    Args:
        old_maps, new_maps: L pairs of maps; the channels of a pair must agree (see `fold_new_classes`).
        factors: one weight per pair.
        growth: sqrt(seen classes / new classes), so that the weight grows with the share of old classes.
        regions, scales: see `local_pod_embedding`.

    Returns:
        a scalar.
    """
    terms = [
        factor * growth * local_pod_distance(old, new, regions, scales).mean()
        for old, new, factor in zip(old_maps, new_maps, factors, strict=True)
    ]
    return torch.stack(terms).mean()

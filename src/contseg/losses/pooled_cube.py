"""Pooled cube distillation (RCIL, Zhang et al., CVPR 2022): squared maps, averaged over space and over channels."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from contseg.precision import precisely

WINDOWS = (4, 8, 12, 16, 20, 24)
"""Sides of the windows, in feature pixels."""


@precisely
def spatial_distance(old_BCHW: Tensor, new_BCHW: Tensor, windows: Sequence[int] = WINDOWS) -> Tensor:
    """Distance of squared maps that are averaged over windows: mean over windows of the mean norm of an image, a scalar.

    The windows slide by one pixel. Padding by half a window with zeros is counted in the average. Averages are products of
    the difference of both maps with a matrix per axis, several times faster than pooling over such windows.

    Example:
        >>> spatial_distance(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), windows=(2,))
        tensor(1.5000)
    """
    difference = old_BCHW.square() - new_BCHW.square()
    distances = []
    for side in windows:
        over_rows, over_columns = (_averages(length, side).to(difference) for length in difference.shape[2:])
        pooled = functional.linear(functional.linear(difference, over_columns).transpose(2, 3), over_rows)
        distances.append(torch.linalg.vector_norm(pooled.flatten(1), dim=1).mean())
    return torch.stack(distances).mean()


@lru_cache(maxsize=256)
def _averages(length: int, side: int) -> Tensor:
    """The averages over windows of an axis with zeros around it, as a matrix (windows, length)."""
    windows = length + 2 * (side // 2) - side + 1
    places = torch.arange(length)[None, :] - torch.arange(windows)[:, None] + side // 2
    return ((places >= 0) & (places < side)).double() / side


@precisely
def channel_distance(old_BCHW: Tensor, new_BCHW: Tensor) -> Tensor:
    """Distance of squared maps that are averaged over three neighbouring channels: mean norm of an image, a scalar.

    A channel of zeros before the first and after the last one is counted.

    Example:
        >>> channel_distance(torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        tensor(2.3570)
    """
    difference = old_BCHW.square() - new_BCHW.square()
    before, after = functional.pad(difference, (0, 0, 0, 0, 1, 0)), functional.pad(difference, (0, 0, 0, 0, 0, 1))
    pooled = (before[:, :-1] + difference + after[:, 1:]) / 3
    return torch.linalg.vector_norm(pooled.flatten(1), dim=1).mean()

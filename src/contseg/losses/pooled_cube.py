"""Pooled cube distillation (RCIL, Zhang et al., CVPR 2022): squared maps, averaged over space and over channels."""

from collections.abc import Sequence

from torch import Tensor

from contseg.losses.sliding import neighbour_distance, window_distances
from contseg.precision import precisely

WINDOWS = (4, 8, 12, 16, 20, 24)
"""Sides of the windows, in feature pixels."""


@precisely
def spatial_distance(old_BCHW: Tensor, new_BCHW: Tensor, windows: Sequence[int] = WINDOWS) -> Tensor:
    """Distance of squared maps that are averaged over windows: mean over windows of the mean norm of an image, a scalar.

    The windows slide by one pixel. Padding by half a window with zeros is counted in the average. Gradients reach `new`
    alone.

    Example:
        >>> import torch
        >>> spatial_distance(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), windows=(2,))
        tensor(1.5000)
    """
    return window_distances(old_BCHW, new_BCHW, tuple(windows)).mean()


@precisely
def channel_distance(old_BCHW: Tensor, new_BCHW: Tensor) -> Tensor:
    """Distance of squared maps that are averaged over three neighbouring channels: mean norm of an image, a scalar.

    A channel of zeros before the first and after the last one is counted. Gradients reach `new` alone.

    Example:
        >>> import torch
        >>> channel_distance(torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        tensor(2.3570)
    """
    return neighbour_distance(old_BCHW, new_BCHW).mean()

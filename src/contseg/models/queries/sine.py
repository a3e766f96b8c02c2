"""Sine positions: of the places of a map, and of boxes."""

import math

import torch
from torch import Tensor

PERIOD = 10000.0
"""Ratio of the longest and the shortest period."""


def sine_map(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Positions of the places of a map, (height * width, channels): row first, then column.

    Places count from 1 and are scaled to 2 pi at the last one.

    Args:
        channels: a multiple of 4.
        like: of the dtype and the device of the result.

    Example:
        >>> sine_map(2, 3, 8, torch.zeros(())).shape
        torch.Size([6, 8])
    """
    sides = [(torch.arange(length).to(like) + 1) / (length + 1e-6) for length in (height, width)]
    rows, columns = (_waves(side, channels // 2) for side in sides)
    grid = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return torch.cat(grid, dim=2).flatten(0, 1)


def sine_boxes(boxes: Tensor, channels: int) -> Tensor:
    """Positions of boxes, (..., 2 * channels): of y, x, width and height.

    Args:
        boxes: (..., 4) centre x, y, width, height in [0, 1].
        channels: of x and y together.

    Example:
        >>> sine_boxes(torch.zeros(2, 5, 4), 8).shape
        torch.Size([2, 5, 16])
    """
    x, y, width, height = boxes.unbind(dim=-1)
    return torch.cat([_waves(side, channels // 2) for side in (y, x, width, height)], dim=-1)


def _waves(places: Tensor, channels: int) -> Tensor:
    """Alternating sines and cosines of places in [0, 1], (..., channels)."""
    exponents = torch.arange(0, channels, 2, device=places.device).to(places) / channels
    angles = 2 * math.pi * places[..., None] / PERIOD**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)

"""Distances between the feature maps of student and teacher, per position."""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.classes import IGNORE
from contseg.precision import precisely


@precisely
def squared_distance(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Mean over channels of (s - t)^2: (B, H, W). Encoder distillation of ILT (Michieli & Zanuttigh, ICCVW 2019).

    Example:
        >>> squared_distance(torch.full((1, 2, 1, 1), 3.0), torch.ones(1, 2, 1, 1))
        tensor([[[4.]]])
    """
    return (student_BCHW - teacher_BCHW).square().mean(dim=1)


@precisely
def cosine_distance(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """1 - cosine similarity over channels: (B, H, W), in [0, 2]. Variant of the journal version of ILT (CVIU 2021).

    Example:
        >>> cosine_distance(torch.ones(1, 2, 1, 1), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        tensor([[[0.2929]]])
    """
    return 1 - functional.cosine_similarity(student_BCHW, teacher_BCHW, dim=1)


def old_positions(labels_BHW: Tensor, size: tuple[int, int], old_classes: int) -> Tensor:
    """Positions whose label, resized by nearest neighbour, is old or background: (B, h, w), 0 there and 255 elsewhere.

    Args:
        labels_BHW: int64 labels; 255 (ignored) is not old.
        size: (h, w) of the map.
        old_classes: O, including background.

    Example:
        >>> old_positions(torch.tensor([[[0, 1, 4, 4, 255, 1]]]), (1, 3), old_classes=3)
        tensor([[[  0, 255, 255]]])
    """
    return torch.where(nearest(labels_BHW, size) < old_classes, 0, IGNORE)


def nearest(labels_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels resized by PyTorch's nearest neighbour, which takes the first pixel of every cell: (B, h, w).

    Args:
        size: (h, w) of the map.

    Example:
        >>> nearest(torch.tensor([[[0, 1, 4, 4, 255, 1]]]), (1, 3))
        tensor([[[  0,   4, 255]]])
    """
    # float64 represents every label and is accepted by `interpolate`
    near = functional.interpolate(labels_BHW.unsqueeze(1).double(), size, mode="nearest").squeeze(1)
    return near.to(labels_BHW.dtype)

"""Queries that are selected among the patches of an image (SimCIS: Shi et al., CVPR 2025)."""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def best_places(class_logits_BPC: Tensor, count: int) -> Tensor:
    """The patches (B, Q) that look most like a class, best first: those with the highest probability of one.

    Args:
        class_logits_BPC: no-object last.
        count: Q; fewer if there are fewer patches.

    Example:
        >>> best_places(torch.tensor([[[0.0, 9.0], [2.0, 0.0], [1.0, 0.0]]]), 2)
        tensor([[1, 2]])
    """
    chance = class_logits_BPC.float().softmax(dim=2)[:, :, :-1].amax(dim=2)
    return chance.sort(dim=1, descending=True, stable=True).indices[:, :count]


def without_attention(block: Any, values_BVD: Tensor) -> Tensor:
    """What a block of a ViT makes of tokens that look at nothing: its perceptron alone."""
    kept = getattr(block, "ls2", None)
    if kept is not None:
        return values_BVD + kept(block.mlp(block.norm2(values_BVD)))
    return values_BVD + block.gamma_2 * block.mlp(block.norm2(values_BVD))

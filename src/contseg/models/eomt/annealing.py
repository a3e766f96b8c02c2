"""How probable it is that a query only looks at the patches of its mask: less and less in training, never at the end."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

POWER = 0.9
Spans = Sequence[tuple[float, float]]


def default_spans(blocks: int) -> list[tuple[float, float]]:
    """Shares of the updates between which each block is annealed, one block after the other, as published for DINOv2.

    Example:
        >>> [(round(start, 2), round(end, 2)) for start, end in default_spans(4)]
        [(0.17, 0.33), (0.33, 0.5), (0.5, 0.67), (0.67, 0.83)]
    """
    return [((block + 1) / (blocks + 2), (block + 2) / (blocks + 2)) for block in range(blocks)]


def mask_probability(update: int, start: float, end: float) -> float:
    """The probability of a masked query after some updates: 1 until `start`, 0 from `end` on.

    Args:
        update: number of finished updates.
        start, end: numbers of updates.

    Example:
        >>> [round(mask_probability(update, 5, 20), 3) for update in (5, 6, 19, 20)]
        [1.0, 0.94, 0.087, 0.0]
    """
    if update < start:
        return 1.0
    return 0.0 if update >= end else (1 - (update - start) / (end - start)) ** POWER


def visible_patches(mask_logits_BQHW: Tensor, grid: tuple[int, int], opened_BQ: Tensor | None = None) -> Tensor:
    """Which patches each query may look at, (B, Q, rows x columns) bool: those where its mask is positive.

    Args:
        mask_logits_BQHW: of the prediction before the block.
        opened_BQ: queries that look everywhere.

    Example:
        >>> import torch
        >>> masks = torch.tensor([-1.0, 2.0, 3.0, -1.0]).view(1, 2, 1, 2)
        >>> visible_patches(masks, (1, 2), torch.tensor([[False, True]])).tolist()
        [[[False, True], [True, True]]]
    """
    small = functional.interpolate(mask_logits_BQHW.detach(), grid, mode="bilinear", align_corners=False)
    visible = small.flatten(2) > 0
    return visible if opened_BQ is None else visible | opened_BQ[:, :, None]


def attention_mask(visible_BQP: Tensor, tokens: int) -> Tensor:
    """The mask of a block (B, 1, N, N): queries in front see these patches at the end, and everything else sees everything.

    Args:
        tokens: number N of all tokens.

    Example:
        >>> import torch
        >>> attention_mask(torch.tensor([[[True, False]]]), 4)[0, 0].int().tolist()
        [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    batch, queries, patches = visible_BQP.shape
    mask = visible_BQP.new_ones(batch, 1, tokens, tokens)
    mask[:, 0, :queries, tokens - patches :] = visible_BQP
    return mask

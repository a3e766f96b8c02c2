"""Which query belongs to which target: the assignment of least cost, computed on the CPU."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.errors import ContsegError

HIGHEST = 1e10
"""Costs are limited to this range; a cost that is not a number is 0."""
MORE_TARGETS = "an image has more masks than the network has queries, and the worst are left out; raise network.head.queries"


@dataclass(frozen=True)
class Matches:
    """Pairs of queries and targets, by image, and within an image by query.

    Args:
        images: (M,) position in the batch.
        queries: (M,) query of the image.
        targets: (M,) target of the image.
        rows: (M,) the same target, counted over the batch.
        left_out: targets without a query, as their image has more targets than queries.
    """

    images: Tensor
    queries: Tensor
    targets: Tensor
    rows: Tensor
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def of(self, values_BQ: Tensor) -> Tensor:
        """The values of the matched queries, (M, ...)."""
        return values_BQ[self.images, self.queries]


def assign(costs: Sequence[Tensor]) -> Matches:
    """The pairs of least total cost in each image; one transfer from the device, and one back.

    An image with more targets than queries leaves some without a query: they are counted, and a warning is given once.

    Args:
        costs: for each image (Q, T), with T of its own.

    Raises:
        ContsegError: SciPy is not installed.

    Example:
        >>> found = assign([torch.tensor([[1.0, 0.0], [0.0, 9.0], [5.0, 5.0]]), torch.zeros(3, 0)])
        >>> found.queries.tolist(), found.targets.tolist()
        ([0, 1], [1, 0])
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ContsegError("matching of masks needs SciPy; pip install 'contseg[masks]'") from None
    flat = torch.cat([cost.detach().flatten() for cost in costs])
    together = torch.nan_to_num(flat, nan=0.0, posinf=HIGHEST, neginf=-HIGHEST).clamp(-HIGHEST, HIGHEST).cpu().numpy()
    pairs: list[tuple[int, int, int, int]] = []
    start = before = left_out = 0
    for image, cost in enumerate(costs):
        queries, count = cost.shape
        chosen = linear_sum_assignment(together[start : start + queries * count].reshape(queries, count))
        pairs += [(image, query, target, before + target) for query, target in zip(*map(list, chosen), strict=True)]
        start, before, left_out = start + queries * count, before + count, left_out + max(0, count - queries)
    if left_out:
        warnings.warn(MORE_TARGETS, stacklevel=2)
    table = torch.tensor(pairs, dtype=torch.int64).view(-1, 4).T.to(flat.device, non_blocking=True)
    of_images, of_queries, of_targets, rows = table
    return Matches(of_images, of_queries, of_targets, rows, left_out)

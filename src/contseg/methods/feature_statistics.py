"""Statistics of the features of each class, from one pass over the images of a step (STAR, Adapter)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.replay import sampled
from contseg.ranks import ALONE, Ranks


@dataclass(frozen=True)
class ReplaySizes:
    """How much is replayed in every update of a step.

    Attributes:
        counts: (K,) int64, drawn features of each old class.
        background: weight of the features that are background for the teacher.
        numbers: (1 + K,) float64, positions of background and of each old class to store after the step.
    """

    counts: Tensor
    background: float
    numbers: Tensor


def replay_sizes(
    numbers: Tensor, predicted: Tensor, new: int, updates: int, setting: Literal["overlapped", "disjoint"]
) -> ReplaySizes:
    """The sizes of STAR: a class is replayed as often as it is missing in the images of a step.

    Args:
        numbers: (1 + K,) positions of background and of each old class in the steps before.
        predicted: (1 + K,) positions without a label in the images of this step, by the teacher's decision.
        new: number of new classes.
        updates: in an epoch.
        setting: in `disjoint` the images of this step count in addition to those before.

    Example:
        >>> sizes = replay_sizes(torch.tensor([100.0, 40.0]), torch.tensor([50.0, 10.0]), 1, 10, "overlapped")
        >>> sizes.counts, sizes.background, sizes.numbers
        (tensor([3]), 1.48, tensor([124.,  40.]))
    """
    unlabelled = max(float(predicted[0]), 1e-12)
    if setting == "disjoint":
        stored = numbers + predicted
        return ReplaySizes((numbers[1:] / updates).long(), float(numbers[0]) / unlabelled, stored)
    background = float(numbers[0]) * (1 - 0.01 * new)
    counts = ((numbers[1:] - predicted[1:]) / updates).long().clamp(min=0)
    stored = torch.cat([(0.5 * predicted[:1] + background), numbers[1:]])
    return ReplaySizes(counts, max(0.0, background / unlabelled - 0.5), stored)


class ClassSums:
    """Sums over the positions of each class, from which all its statistics follow; memory does not grow with images.

    Args:
        first: label of the first class.
        count: number of classes.

    Example:
        >>> sums = ClassSums(first=1, count=1)
        >>> sums.add(torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]]), torch.tensor([[[1, 1]]]))
        >>> sums.prototypes.float(), sums.norms.flatten().float(), sums.numbers.float()
        (tensor([[0.3162, 0.9487]]), tensor([3.5000, 2.1213]), tensor([2.]))
    """

    def __init__(self, first: int, count: int):
        self.first, self.count = first, count
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(self, features_BDHW: Tensor, labels_BHW: Tensor) -> None:
        """Add a batch.

        Args:
            labels_BHW: labels of the image; each feature has the one at the centre of its cell.
        """
        size = (features_BDHW.shape[2], features_BDHW.shape[3])
        labels = labels_BHW if labels_BHW.shape[1:] == size else sampled(labels_BHW, size)
        own = (labels >= self.first) & (labels < self.first + self.count)
        rows_ND = features_BDHW.permute(0, 2, 3, 1)[own].double()
        norms_N1 = rows_ND.norm(dim=1, keepdim=True)
        units_ND = functional.normalize(rows_ND, dim=1)
        values = torch.cat([torch.ones_like(norms_N1), norms_N1, norms_N1.square(), units_ND, units_ND.square()], dim=1)
        if self._sums is None:
            self._sums = values.new_zeros(self.count, values.shape[1])
        self._sums.index_add_(0, labels[own] - self.first, values)

    def gathered(self, ranks: Ranks = ALONE) -> "ClassSums":
        """The sums over all ranks; every rank must have added a batch."""
        assert self._sums is not None
        self._sums = ranks.sum(self._sums)
        return self

    @property
    def numbers(self) -> Tensor:
        """Positions of each class, (K,) float64."""
        return self._parts[0].flatten()

    @property
    def prototypes(self) -> Tensor:
        """Mean direction of each class as a unit vector, (K, D) float64; 0 for a class without positions."""
        return functional.normalize(self._parts[3], dim=1)

    @property
    def norms(self) -> Tensor:
        """Mean and unbiased deviation of the norm, (2, K) float64; 0 for a class with no or one position."""
        number, length, square, *_ = (part.flatten() for part in self._parts[:3])
        mean = length / number.clamp(min=1)
        variance = (square - number * mean.square()) / (number - 1).clamp(min=1)
        return torch.stack([mean, variance.clamp(min=0).sqrt().where(number > 1, 0.0)])

    def noise(self, prototypes_KD: Tensor | None = None) -> Tensor:
        """Root mean square deviation of directions from a prototype, per dimension: (K, D) float64.

        Args:
            prototypes_KD: of other classes, as in STAR's released code; default: their own.
        """
        number, *_, unit, square = self._parts
        centre = self.prototypes if prototypes_KD is None else prototypes_KD.to(unit)
        mean, moment = unit / number.clamp(min=1), square / number.clamp(min=1)
        return (moment - 2 * centre * mean + centre.square()).clamp(min=0).sqrt().where(number > 0, 0.0)

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        assert self._sums is not None
        depth = (self._sums.shape[1] - 3) // 2
        return self._sums.split([1, 1, 1, depth, depth], dim=1)

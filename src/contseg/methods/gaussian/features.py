"""The features of the Gaussian head: a frozen map, standardised, and optionally expanded at random."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from contseg.models.freezing import evaluating
from contseg.models.from_features import FromFeatures
from contseg.models.options import ReadoutTap
from contseg.models.output import SegmenterOutput
from contseg.models.segmenter import Segmenter
from contseg.ranks import ALONE, Ranks
from contseg.scenarios.batch import Batch


@dataclass(frozen=True, eq=False)
class Features:
    """phi = (g - mean) / std; with an expansion, phi = relu(R (g - mean) / std + r).

    R_ij ~ N(0, 1/d) and r_j ~ N(0, 1/4) are drawn from the seed by a generator whose stream is the same in all versions of
    NumPy. The map is fixed in step 0 and never changes.

    Args:
        tap: the map g of the segmenter.
        mean, std: of the channels of g in step 0, (d,) float64.
        expansion: M, number of random dimensions; 0 has none, so that M = d.
        seed: of R and r.
        parts: channels of the maps that the tap concatenates, if they count as independent: covariances between maps are
            taken as 0, and each map has the same weight in a score, whatever its width.

    Example:
        >>> features = Features("head", torch.zeros(4), torch.ones(4), expansion=6)
        >>> features(torch.zeros(10, 4)).shape, features.width
        (torch.Size([10, 6]), 6)
    """

    tap: ReadoutTap
    mean: Tensor
    std: Tensor
    expansion: int = 0
    seed: int = 0
    parts: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """M, the dimensions of phi."""
        return self.expansion or len(self.mean)

    @cached_property
    def convolution(self) -> tuple[Tensor, Tensor]:
        """The affine part of phi as a function of g: weight (M, d) and bias (M,), float64."""
        if not self.expansion:
            return torch.diag(1 / self.std), -self.mean / self.std
        weight, bias = self._drawn
        return weight / self.std, bias - weight @ (self.mean / self.std)

    @cached_property
    def _drawn(self) -> tuple[Tensor, Tensor]:
        """R and r."""
        draw = np.random.RandomState(self.seed)  # its stream never changes
        weight = torch.from_numpy(draw.standard_normal((self.expansion, len(self.mean)))) / math.sqrt(len(self.mean))
        bias = torch.from_numpy(draw.standard_normal(self.expansion)) / 2
        return weight.to(self.mean), bias.to(self.mean)

    @cached_property
    def origin(self) -> Tensor:
        """The mean of phi if g were normally distributed, (M,).

        Discriminants relative to a fixed point decide alike, and their numbers are smaller.
        """
        if not self.expansion:
            return torch.zeros_like(self.mean)
        weight, bias = self._drawn
        spread = weight.square().sum(dim=1).sqrt()
        ratio = bias / spread
        density = (-ratio.square() / 2).exp() / math.sqrt(2 * math.pi)
        return bias * torch.special.ndtr(ratio) + spread * density

    def __call__(self, g_ND: Tensor) -> Tensor:
        """phi of N vectors, (N, M), in their precision."""
        if not self.expansion:
            return (g_ND - self.mean.to(g_ND)) / self.std.to(g_ND)
        weight, bias = (tensor.to(g_ND) for tensor in self.convolution)
        return torch.addmm(bias, g_ND, weight.T).relu()

    def separated(self, covariance_MM: Tensor) -> Tensor:
        """A covariance of phi without covariances between parts."""
        if not self.parts:
            return covariance_MM
        return torch.block_diag(*(covariance_MM[own, own] for own in self.places))

    @property
    def triangle(self) -> Tensor:
        """Rows and columns, (2, N), of a covariance's lower triangle without the entries between parts."""
        sizes = [(own.stop - own.start, own.start) for own in self.places]
        return torch.cat([torch.tril_indices(size, size) + start for size, start in sizes], dim=1)

    @property
    def weights(self) -> Tensor:
        """Weight of each dimension in a score: inverse to the width of its part, and 1 on average over the parts, (M,)."""
        if not self.parts:
            return self.mean.new_ones(self.width)
        widths = self.mean.new_tensor(self.parts)
        each = (1 / widths) / (1 / widths).mean()
        return each.repeat_interleave(torch.tensor(self.parts, device=each.device))

    @property
    def places(self) -> list[slice]:
        """The dimensions of each part; of all, without parts."""
        parts = self.parts or (self.width,)
        return [slice(end - width, end) for end, width in zip(itertools.accumulate(parts), parts, strict=True)]

    def same_as(self, other: "Features") -> bool:
        """Whether both are the same map, so that their sums can be added."""
        fixed = all(getattr(self, name) == getattr(other, name) for name in ("tap", "expansion", "seed", "parts"))
        return fixed and torch.equal(self.mean.cpu(), other.mean.cpu()) and torch.equal(self.std.cpu(), other.std.cpu())

    def to(self, device: torch.device | str) -> Self:
        """The same map on a device."""
        return replace(self, mean=self.mean.to(device), std=self.std.to(device))

    @classmethod
    @torch.no_grad()
    def measured(
        cls,
        segmenter: Segmenter,
        batches: Iterable[Batch],
        tap: ReadoutTap = "head",
        expansion: int = 0,
        seed: int = 0,
        ranks: Ranks = ALONE,
    ) -> "Features":
        """Measure mean and deviation of a map in one pass over images; labels are not used.

        Channels that never change get the deviation 1. Without images, mean and deviation are 0 and 1.
        """
        count = torch.zeros((), dtype=torch.float64, device=segmenter.mean.device)
        mean = squares = torch.zeros((), dtype=torch.float64, device=segmenter.mean.device)
        for _, g_BDHW in maps(segmenter, batches, tap):
            g_ND = g_BDHW.movedim(1, -1).flatten(0, 2).double()
            added, total = len(g_ND), count + len(g_ND)
            own = g_ND.mean(dim=0)
            squares = squares + (g_ND - own).square().sum(dim=0) + (own - mean).square() * (count * added / total)
            mean, count = mean + (own - mean) * (added / total), total
        depth = segmenter.channels_of(tap)
        mean, squares = (value.expand(depth) for value in (mean, squares))
        total = ranks.sum(count).clamp(min=1)
        overall = ranks.sum(mean * count) / total
        std = (ranks.sum(squares + (mean - overall).square() * count) / total).sqrt()
        parts = segmenter.pyramid_channels if tap == "pyramid" and not expansion else ()
        return cls(tap, overall, std.where(std > 0, 1.0), expansion, seed, parts)


def outputs(segmenter: Segmenter, batch: Batch, taps: Sequence[str] = ()) -> SegmenterOutput:
    """The output for a batch, from its held features if it has them."""
    if batch.held is not None:
        return segmenter(None, taps=taps, start=FromFeatures(batch.held.student, batch.size))
    return segmenter(segmenter.normalise(batch.images), taps=taps)


def looked(segmenter: Segmenter, batches: Iterable[Batch], tap: str) -> Iterator[tuple[Batch, SegmenterOutput]]:
    """Each batch with the output of the segmenter in evaluation mode, a tap included, without gradients."""
    with evaluating(segmenter):
        for batch in batches:
            with torch.no_grad():
                output = outputs(segmenter, batch, (tap,))
            yield batch, output


def maps(segmenter: Segmenter, batches: Iterable[Batch], tap: str) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with a map of the segmenter in evaluation mode, (B, d, h, w), without gradients."""
    return ((batch, output.features[tap]) for batch, output in looked(segmenter, batches, tap))

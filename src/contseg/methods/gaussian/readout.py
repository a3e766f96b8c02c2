"""From sums to weights: linear discriminants in float64, written into a segmenter as 1x1 convolutions."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor, nn

from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.methods.gaussian.features import Features
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.names import Decision
from contseg.models.options import ReadoutOptions
from contseg.models.readout import FixedConvolution, ReadoutClassifier
from contseg.models.segmenter import Segmenter

RHO = 0.01
Prior = Literal["equal", "counts"]
NEVER = -1e4
"""Score of a class without cells."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Linear discriminants on phi, in float64.

    Args:
        weight, bias: of each output, (K, M) and (K,).
        centres_weight, centres_bias: of further centres of background, (C, M) and (C,).
        whitening: W (M, M) and offset (M,): |W phi + offset|^2 / 2 is added to the score of background, which is then
            larger than a class's score where that class is too far; or None.
    """

    weight: Tensor
    bias: Tensor
    centres_weight: Tensor
    centres_bias: Tensor
    whitening: tuple[Tensor, Tensor] | None = None

    def scores(self, phi_NM: Tensor) -> Tensor:
        """Scores of N vectors, (N, K); the prediction is their arg max."""
        phi_NM = phi_NM.to(self.weight)
        scores = phi_NM @ self.weight.T + self.bias
        background = scores[:, :1]
        if len(self.centres_bias):
            further = phi_NM @ self.centres_weight.T + self.centres_bias
            background = torch.maximum(background, further.amax(dim=1, keepdim=True))
        if self.whitening is not None:
            matrix, offset = self.whitening
            background = background + (phi_NM @ matrix.T + offset).square().sum(dim=1, keepdim=True) / 2
        return torch.cat([background, scores[:, 1:]], dim=1)


def readout(
    sums: GaussianSums,
    table: ClassTable,
    *,
    rho: float = RHO,
    prior: Prior = "equal",
    quantile: float | None = None,
    centres: Tensor | None = None,
) -> Readout:
    """The discriminants of sums: V = S / K + rho tr(S / K) / M I, w_c = V^-1 m_c / n_c, b_c = -1/2 w_c m_c / n_c.

    All scores are relative to `Features.origin`, which does not change decisions. Each row is computed on its own, so the
    rows of old classes are bit-equal if neither their sums nor the covariance change.

    Args:
        sums: of the classes; a class that they lack, or that has no cells, is never predicted.
        table: classes in output order. Its background has the mean of all background cells.
        rho: shrinkage towards the unit matrix, above 0.
        prior: `equal`, or `counts`, which adds log n_c.
        quantile: background is what is farther than this quantile of the chi-square distribution from every class, in
            (0, 1); None: background is a class with a mean.
        centres: centres of background, (C, M), that replace its mean; the best one counts.

    Raises:
        ContsegError: rho is not above 0.
    """
    width, origin = sums.features.width, sums.features.origin
    factor = factored(sums.covariance, rho) / sums.features.weights.sqrt()[:, None]

    def rows(means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        # one system at a time: with several, the last bits of a row would depend on the others
        solved = [torch.cholesky_solve((mean - origin)[:, None], factor)[:, 0] for mean in means]
        weight = torch.stack(solved) if solved else means
        bias = -((means + origin) * weight).sum(dim=1) / 2
        bias = bias + counts.clamp(min=1).log() if prior == "counts" else bias
        seen = counts > 0
        return weight * seen[:, None], bias.where(seen, NEVER)

    first = int(table.has_background)
    counts, totals, _ = sums.only(table.names[first:])
    ground = sums.background_counts.sum()[None]
    if first and quantile is None:
        means = sums.background_totals.sum(dim=0, keepdim=True) / ground.clamp(min=1) if centres is None else centres[:1]
        counts, totals = torch.cat([ground, counts]), torch.cat([means * ground, totals])
    elif first:
        counts, totals = torch.cat([ground * 0, counts]), torch.cat([totals.new_zeros(1, width), totals])
    weight, bias = rows(totals / counts.clamp(min=1)[:, None], counts)
    further = centres[1:] if first and centres is not None else totals[:0]
    centres_weight, centres_bias = rows(further, ground.expand(len(further)))
    if not first or quantile is None:
        return Readout(weight, bias, centres_weight, centres_bias)
    whitening = torch.linalg.solve_triangular(factor, torch.eye(width).to(factor), upper=False)
    bias = torch.cat([bias.new_full((1,), -chi_square(quantile, width) / 2), bias[1:]])
    return Readout(weight, bias, centres_weight, centres_bias, (whitening, -whitening @ origin))


def factored(covariance: Tensor, rho: float) -> Tensor:
    """Cholesky factor of a covariance (M, M) with the share rho of its mean variance added to the diagonal.

    Raises:
        ContsegError: rho is not above 0.
    """
    if rho <= 0:
        raise ContsegError(f"rho: must be above 0 (got {rho:g})")
    scale = covariance.trace() / len(covariance)
    return torch.linalg.cholesky(
        covariance + rho * scale.where(scale > 0, 1 / rho) * torch.eye(len(covariance)).to(covariance)
    )


def chi_square(quantile: float, degrees: int) -> float:
    """Quantile of the chi-square distribution (approximation of Wilson and Hilferty).

    Example:
        >>> round(chi_square(0.95, 10), 1)
        18.3
    """
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + NormalDist().inv_cdf(quantile) * spread**0.5) ** 3)


def apply(segmenter: Segmenter, sums: GaussianSums, table: ClassTable, **options: object) -> Readout:
    """Replace the classifier of a segmenter by the read-out of sums. No other weight changes.

    Args:
        segmenter: with an output for each class of the table.
        sums, table, options: see `readout`.

    Returns:
        the read-out.

    Raises:
        ContsegError: the numbers of outputs and classes differ; or see `readout`.
    """
    if sum(segmenter.widths) != len(table):
        raise ContsegError(f"read-out: {len(table)} classes for a segmenter of {sum(segmenter.widths)} outputs")
    found = readout(sums, table, **options)  # type: ignore[arg-type]
    install(segmenter, sums.features, found)
    return found


@torch.no_grad()
def install(segmenter: Segmenter, features: Features, found: Readout, decision: Decision = "softmax") -> None:
    """Write a read-out into a segmenter; without an expansion, the standardisation is part of its convolutions.

    Args:
        decision: of the segmenter from then on.
    """
    segmenter.use_readout(
        ReadoutOptions(
            tap=features.tap,
            expansion=features.expansion,
            centres=len(found.centres_bias),
            distance=found.whitening is not None,
        ),
        decision,
    )
    classifier = segmenter.classifier
    assert isinstance(classifier, ReadoutClassifier)
    if classifier.expansion is not None:
        _fill(classifier.expansion, *features.convolution)
    weight, bias = on_map(features, found.weight, found.bias)
    for step, rows, offsets in zip(
        classifier.steps, weight.split(segmenter.widths), bias.split(segmenter.widths), strict=True
    ):
        _fill(step, rows, offsets)
    if classifier.centres is not None:
        _fill(classifier.centres, *on_map(features, found.centres_weight, found.centres_bias))
    if classifier.distance is not None and found.whitening is not None:
        _fill(classifier.distance, *on_map(features, *found.whitening))


def on_map(features: Features, weight_KM: Tensor, bias_K: Tensor) -> tuple[Tensor, Tensor]:
    """Rows on phi as rows on the input of the convolution, which is the map itself without an expansion."""
    if features.expansion:
        return weight_KM, bias_K
    scaled = weight_KM / features.std
    return scaled, bias_K - (scaled * features.mean).sum(dim=1)


def _fill(convolution: nn.Module, weight: Tensor, bias: Tensor) -> None:
    assert isinstance(convolution, nn.Conv2d | FixedConvolution)
    convolution.weight.copy_(weight[:, :, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(bias)

"""New classes next to a trained head that keeps its weights: one-vs-rest discriminants, calibrated against it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from contseg.data.classes import IGNORE, ClassTable
from contseg.errors import ContsegError
from contseg.methods.gaussian.features import Features, maps
from contseg.methods.gaussian.gather import CellLabel, cell_labels, gather
from contseg.methods.gaussian.readout import RHO, factored, on_map
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.segmenter import Segmenter
from contseg.ranks import ALONE, Ranks
from contseg.scenarios.batch import Batch

LOST = 0.01


@torch.no_grad()
def columns_beside(
    segmenter: Segmenter,
    batches: Iterable[Batch],
    table: ClassTable,
    features: Features,
    *,
    rho: float = RHO,
    lost: float = LOST,
    cells: CellLabel = "centre",
    ranks: Ranks = ALONE,
) -> Tensor:
    """Set the classifiers of the newest step from images in which its classes are labelled. Nothing else changes.

    The score of a new class c is the log odds of c against all other cells of these images, whose Gaussians share a
    covariance. The scale of the old logits is not that of log odds, so a constant is subtracted: the least for which at
    most the share `lost` of the cells that the old head assigns to a foreground class, and that are not labelled c, become
    c. It may be negative; then the share holds for the cells of background too, which would otherwise all become c.

    Args:
        segmenter: grown by the new classes; its classifier is a plain 1x1 convolution.
        batches: images, iterated twice; labels of the new classes are the last outputs, all other labels but 255 are "not
            c".
        table: all classes, in output order.
        features: a standardisation of the tap `head` without expansion.
        rho: see `readout`.
        lost: in [0, 1).
        cells, ranks: see `gather`.

    Returns:
        the constants subtracted, one for each new class.

    Raises:
        ContsegError: the classifier has hidden layers, or the features are not of its input.
    """
    new = segmenter.classifier.steps[-1]
    if not isinstance(new, nn.Conv2d) or features.tap != "head" or features.expansion:
        raise ContsegError(
            "without_sums: columns next to a trained head need a classifier of one 1x1 convolution and the tap head without"
            " expansion; set method.without_sums=confident"
        )
    features, old = features.to(segmenter.mean.device), len(table) - new.out_channels

    def relabelled() -> Iterator[Batch]:
        for batch in batches:
            labels = batch.labels
            yield replace(batch, labels=(labels - old + 1).clamp(min=0).where(labels != IGNORE, IGNORE))

    names = ("every other class", *table.names[old:])
    sums = gather(segmenter, relabelled(), ClassTable.of(names, "none"), features, cells=cells, ranks=ranks)
    rows = [_against_rest(sums, name, rho) for name in names[1:]]
    weight, bias = on_map(features, torch.stack([row for row, _ in rows]), torch.stack([offset for _, offset in rows]))
    new.weight.zero_()  # of a larger kernel, only the centre is used
    new.weight[:, :, new.kernel_size[0] // 2, new.kernel_size[1] // 2] = weight.to(new.weight)
    new.bias.copy_(bias)  # type: ignore[union-attr]
    offsets = _offsets(segmenter, batches, old, int(table.has_background), lost, cells, ranks)
    new.bias -= offsets.to(new.bias)  # type: ignore[operator]
    return offsets


def _against_rest(sums: GaussianSums, name: str, rho: float) -> tuple[Tensor, Tensor]:
    """Weight (M,) and bias of the log odds of a class against all others, whose cells are pooled."""
    own, rest = (_pooled(sums.without(*names)) for names in ([other for other in sums.classes if other != name], [name]))
    covariance = (own.covariance + rest.covariance) / 2
    mean, other = own.means[0], rest.means[0]
    weight = torch.cholesky_solve((mean - other)[:, None], factored(covariance, rho))[:, 0]
    return weight, -(mean + other) @ weight / 2


def _pooled(sums: GaussianSums) -> GaussianSums:
    """The cells of all classes as one class."""
    total, width = sums.totals.sum(dim=0), sums.features.width
    apart = sums.means - total / sums.counts.sum().clamp(min=1)
    scatter = sums.scatters.sum(dim=0) + torch.einsum("k,ki,kj->ij", sums.counts, apart, apart)
    return replace(
        sums,
        classes=("pooled",),
        counts=sums.counts.sum()[None],
        totals=total[None],
        scatters=scatter.view(1, width, width),
    )


def _offsets(
    segmenter: Segmenter,
    batches: Iterable[Batch],
    old: int,
    first: int,
    lost: float,
    cells: CellLabel,
    ranks: Ranks,
) -> Tensor:
    """For each new class, the constant to subtract from its score, see `columns_beside`."""
    of_foreground: list[Tensor] = []
    of_others: list[Tensor] = []
    for batch, logits_BKhw in maps(segmenter, batches, "logits"):
        labels_BN = cell_labels(batch.labels, (logits_BKhw.shape[2], logits_BKhw.shape[3]), cells).flatten(1)
        best_BN, predicted_BN = logits_BKhw[:, :old].flatten(2).max(dim=1)
        above_NK = (logits_BKhw[:, old:].flatten(2) - best_BN[:, None]).movedim(1, -1).flatten(0, 1)
        labels_N, held_N = labels_BN.flatten(), predicted_BN.flatten() >= first
        own_NK = labels_N[:, None] == torch.arange(old, old + above_NK.shape[1], device=labels_N.device)
        of_foreground.append(above_NK.where(held_N[:, None] & ~own_NK, -torch.inf))
        of_others.append(above_NK.where(~own_NK, -torch.inf))
    count = segmenter.widths[-1]
    nothing = segmenter.mean.new_zeros(0, count)
    foreground, others = (torch.cat([nothing, *margins]) for margins in (of_foreground, of_others))
    offsets = []
    for number in range(count):
        offset = _exceeded_by(_gathered(foreground[:, number], ranks), lost)
        if offset <= 0:  # once for each class
            offset = _exceeded_by(_gathered(others[:, number], ranks), lost).clamp(max=0)
        offsets.append(offset)
    return torch.stack(offsets)


def _gathered(values: Tensor, ranks: Ranks) -> Tensor:
    """The finite values of all ranks."""
    longest = int(ranks.gather(values.new_tensor([len(values)])).max())
    padded = torch.cat([values, values.new_full((longest - len(values),), -torch.inf)])
    every = ranks.gather(padded)
    return every[every.isfinite()]


def _exceeded_by(values: Tensor, share: float) -> Tensor:
    """The least value that at most a share of the values exceeds, also after rounding; 0 without values."""
    if not len(values):
        return values.new_zeros(())
    return values.sort(descending=True).values[int(share * len(values))] + 1e-5 * values.abs().max()

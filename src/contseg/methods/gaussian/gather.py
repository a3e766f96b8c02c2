"""One pass over images: the sums of the Gaussian head, from labels or from confident predictions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from contseg.data.classes import IGNORE, ClassTable
from contseg.methods.gaussian.features import Features, looked, maps
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.layers import resize
from contseg.models.output import SegmenterOutput
from contseg.models.segmenter import Segmenter
from contseg.ranks import ALONE, Ranks
from contseg.scenarios.batch import Batch

CellLabel = Literal["centre", "majority"]
LabelsOf = Callable[[Batch, SegmenterOutput, tuple[int, int]], Tensor]
MAJORITY = 0.9
CELLS = 16384
"""Cells whose features are expanded at once."""


def gather(
    segmenter: Segmenter,
    batches: Iterable[Batch],
    table: ClassTable,
    features: Features,
    *,
    learned: Sequence[str] = (),
    cells: CellLabel = "centre",
    scatter: bool = True,
    ranks: Ranks = ALONE,
) -> GaussianSums:
    """Sums over the labelled cells of images, in one pass without gradients.

    Args:
        batches: uint8 images and labels; label i is the class `table.names[i]`. Other labels, such as 255, are not used.
            If the table has a background, label 0 adds to the mean of background.
        features: the map phi, see `Features.measured`.
        learned: classes that this pass teaches, to which its background belongs; default: all.
        cells: label of a cell: that of its `centre` pixel, or of at least 90 % of its pixels (`majority`).
        scatter: whether to sum the scatter of classes; not needed with a frozen covariance.
        ranks: the sums are added over ranks.

    Returns:
        the sums, on the segmenter's device, of the learned classes and of all others that have cells.

    Example:
        >>> from contseg import NetworkOptions
        >>> segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}), [3])
        >>> table, labels = ClassTable.of(["background", "cat", "dog"]), torch.ones(2, 64, 64, dtype=torch.int64)
        >>> batch = Batch(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), labels, ("a", "b"), torch.ones(2, 3).bool())
        >>> features = Features.measured(segmenter, [batch])
        >>> sums = gather(segmenter, [batch], table, features)
        >>> sums.classes, sums.counts.tolist()
        (('cat', 'dog'), [32.0, 0.0])
    """

    def labels(batch: Batch, output: SegmenterOutput, size: tuple[int, int]) -> Tensor:
        return cell_labels(batch.labels, size, cells)

    return _gathered(segmenter, batches, table, features, labels, learned, scatter, ranks)


def sums_of_confident(
    segmenter: Segmenter,
    batches: Iterable[Batch],
    table: ClassTable,
    features: Features,
    *,
    p: float = 0.9,
    cells: CellLabel = "centre",
    scatter: bool = True,
    ranks: Ranks = ALONE,
) -> GaussianSums:
    """Sums of a trained segmenter's classes from its confident predictions, for a segmenter without stored sums.

    A cell whose label is an old foreground class counts as labelled, and one with another class's label is not used.
    Elsewhere (background and ignored) the prediction counts where its probability is at least `p`.

    Args:
        batches: any images, labelled or not (all 255).
        table: classes of the segmenter, in output order.
        p: probability from which a prediction is used, in [0, 1].
        features, cells, scatter, ranks: see `gather`.
    """
    first = int(table.has_background)

    def labels(batch: Batch, output: SegmenterOutput, size: tuple[int, int]) -> Tensor:
        given = cell_labels(batch.labels, size, cells)
        best, predicted = resize(segmenter.scores(output.logits), size).max(dim=1)
        unknown = (given == IGNORE) | (given < first)
        return given.where(~unknown, predicted.where(best >= p, IGNORE))

    return _gathered(segmenter, batches, table, features, labels, (), scatter, ranks)


def _gathered(
    segmenter: Segmenter,
    batches: Iterable[Batch],
    table: ClassTable,
    features: Features,
    labels_of: LabelsOf,
    learned: Sequence[str],
    scatter: bool,
    ranks: Ranks,
) -> GaussianSums:
    device, first = segmenter.mean.device, int(table.has_background)
    names = table.names[first:]
    learned = tuple(learned) or names
    running = _Running(features.to(device), len(names), first, scatter)
    with torch.no_grad():
        for g_ND, labels_N in cells_of(segmenter, batches, features.tap, labels_of):
            running.add(g_ND, labels_N)
        sums = running.over_ranks(ranks).sums(names, learned)
    seen = zip(sums.classes, sums.counts.tolist(), strict=True)
    return sums.without(*(name for name, count in seen if not count and name not in learned))


def cells_of(
    segmenter: Segmenter, batches: Iterable[Batch], tap: str, labels_of: LabelsOf
) -> Iterator[tuple[Tensor, Tensor]]:
    """The cells of each batch in one pass of the network: its map (N, D) and their labels (N,).

    Args:
        labels_of: from a batch, the output for it and the size of the map to the labels of its cells, (B, h, w).
    """
    for batch, output in looked(segmenter, batches, tap):
        g_BDHW = output.features[tap]
        labels_Bhw = labels_of(batch, output, (g_BDHW.shape[2], g_BDHW.shape[3]))
        yield g_BDHW.movedim(1, -1).flatten(0, 2), labels_Bhw.flatten()


class _Running:
    """Sums that grow batch by batch, in place.

    Args:
        classes: number of foreground classes, whose labels begin at `first`.
        first: 1 with a background, else 0.
    """

    def __init__(self, features: Features, classes: int, first: int, scatter: bool):
        width, zeros = features.width, features.mean.new_zeros
        self.features, self.first, self.classes = features, first, classes
        self.counts, self.totals = zeros(first + classes), zeros(first + classes, width)
        self.scatters = zeros(classes, width, width) if scatter else None

    def add(self, g_ND: Tensor, labels_N: Tensor) -> None:
        """Add cells with their labels. The device waits once, for the number of cells of each class."""
        last = self.first + self.classes
        labels_N = labels_N.where((labels_N >= 0) & (labels_N < last), last)
        order = labels_N.argsort(stable=True)
        sizes = torch.bincount(labels_N, minlength=last + 1).tolist()
        for number, indices in enumerate(order.split(sizes)[:last]):
            for part in indices.split(CELLS):
                if len(part):
                    self._add_class(number, self.features(g_ND[part]).double())

    def _add_class(self, number: int, phi_NM: Tensor) -> None:
        count, total, place = len(phi_NM), phi_NM.sum(dim=0), number - self.first
        if self.scatters is not None and place >= 0:
            mean, before = total / count, self.counts[number]
            apart = mean - self.totals[number] / before.clamp(min=1)
            for own in self.features.places:
                centred, away = phi_NM[:, own] - mean[own], apart[own]
                scatter = self.scatters[place, own, own]
                scatter.addmm_(centred.T, centred).addr_(away, away * (before * count / (before + count)))
        self.counts[number] += count
        self.totals[number] += total

    def over_ranks(self, ranks: Ranks) -> "_Running":
        """Add the sums of all ranks: scatters about the common means."""
        counts, totals = ranks.sum(self.counts), ranks.sum(self.totals)
        if self.scatters is not None:
            apart = self._means(self.counts, self.totals) - self._means(counts, totals)
            weighted = (apart * self.counts.sqrt()[:, None])[self.first :]
            self.scatters = ranks.sum(self.scatters + weighted[:, :, None] * weighted[:, None, :])
        self.counts, self.totals = counts, totals
        return self

    @staticmethod
    def _means(counts: Tensor, totals: Tensor) -> Tensor:
        return totals / counts.clamp(min=1)[:, None]

    def sums(self, names: tuple[str, ...], learned: tuple[str, ...]) -> GaussianSums:
        """The result. Without scatters it only adds to sums with a frozen covariance."""
        first, empty = self.first, GaussianSums.empty(self.features)
        return replace(
            empty,
            classes=names,
            counts=self.counts[first:],
            totals=self.totals[first:],
            scatters=empty.scatters if self.scatters is None else _mirrored(self.scatters),
            steps=(learned,) if first else (),
            background_counts=self.counts[:first],
            background_totals=self.totals[:first],
            frozen=empty.scatters.new_zeros(self.features.width, self.features.width) if self.scatters is None else None,
        )


def cell_labels(labels_BHW: Tensor, size: tuple[int, int], rule: CellLabel = "centre") -> Tensor:
    """The label of each cell of a feature map, (B, h, w).

    Args:
        labels_BHW: 0 to 255.
        size: (h, w).
        rule: `centre`: of the centre pixel; `majority`: of at least 90 % of the cell's pixels, else 255.

    Example:
        >>> labels = torch.tensor([[[1, 1, 1, 0], [1, 1, 0, 0], [2, 2, 2, 2], [2, 2, 2, 2]]])
        >>> cell_labels(labels, (2, 2)).tolist(), cell_labels(labels, (2, 2), "majority").tolist()
        ([[[1, 0], [2, 2]]], [[[1, 255], [2, 2]]])
    """
    height, width = labels_BHW.shape[-2:]
    device = labels_BHW.device
    if rule == "centre":
        rows, columns = (
            (2 * torch.arange(new, device=device) + 1) * old // (2 * new)
            for old, new in zip((height, width), size, strict=True)
        )
        return labels_BHW[:, rows[:, None], columns]
    rows, columns = (torch.arange(old, device=device) * new // old for old, new in zip((height, width), size, strict=True))
    cells, values = size[0] * size[1], IGNORE + 1
    places_HW = rows[:, None] * size[1] + columns
    counted = torch.stack(
        [torch.bincount((places_HW * values + one).flatten(), minlength=cells * values) for one in labels_BHW]
    ).view(-1, *size, values)
    most, label = counted.max(dim=-1)
    return label.where(most >= MAJORITY * counted.sum(dim=-1), IGNORE)


@dataclass(frozen=True)
class Only:
    """The samples of batches whose names are chosen; batches without any are left out. Can be iterated repeatedly."""

    batches: Iterable[Batch]
    chosen: Callable[[str], bool]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            kept = [place for place, name in enumerate(batch.names) if self.chosen(name)]
            if kept:
                yield batch.rows(kept)


def labelled_cells(
    segmenter: Segmenter, batches: Iterable[Batch], features: Features, rule: CellLabel = "centre"
) -> Iterator[tuple[Tensor, Tensor]]:
    """phi (N, M) and labels (N,) of the cells of images, some thousands at a time."""
    for batch, g_BDHW in maps(segmenter, batches, features.tap):
        labels_N = cell_labels(batch.labels, (g_BDHW.shape[2], g_BDHW.shape[3]), rule).flatten()
        for part, labels in zip(g_BDHW.movedim(1, -1).flatten(0, 2).split(CELLS), labels_N.split(CELLS), strict=True):
            yield features(part), labels


def _mirrored(scatters_KMM: Tensor) -> Tensor:
    """Symmetric to the last bit, which the product of a matrix with itself is not on every processor."""
    return scatters_KMM.tril() + scatters_KMM.tril(-1).mT

"""How much data a new class has, and how well a model separates it from other classes, in cells of the feature map."""

from collections.abc import Iterable

import numpy as np
import torch

from contseg.evaluation.inference import WHOLE, Inference
from contseg.evaluation.predict import predict_values
from contseg.extension.measure import Photo
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Samples

FEWEST = 30
"""A class with fewer cells of training data gets a warning."""
SEPARATED = 0.75
"""A class of which a smaller share is separated from another class gets a warning."""


def count_cells(samples: Samples, classes: int, stride: int) -> np.ndarray:
    """Cells of each class in samples, by the label of their centre pixels: (classes,) int64.

    Args:
        stride: pixels between cells.
    """
    total = np.zeros(classes, dtype=np.int64)
    for name in samples.names:
        labels = samples.labels({"mask": samples.dataset.read_mask(name)})
        total += np.bincount(labels[stride // 2 :: stride, stride // 2 :: stride].ravel(), minlength=256)[:classes]
    return total


def separation(
    segmenter: Segmenter, photos: Iterable[Photo], classes: int, stride: int, inference: Inference = WHOLE
) -> np.ndarray:
    """Share of the labelled cells of class c with a larger logit for c than for k: (classes, classes) at [c, k], NaN without
    cells.

    Args:
        stride: pixels between cells.
    """
    wins, cells = np.zeros((classes, classes)), np.zeros(classes)
    for photo in photos:
        if photo.labels is None:
            continue
        top = 0
        for band in predict_values(segmenter, photo.image, inference):
            rows = slice(top + (stride // 2 - top) % stride, top + band.shape[1], stride)
            labels = torch.from_numpy(photo.labels[rows, stride // 2 :: stride].astype(np.int64)).flatten()
            values = band[:, rows.start - top :: stride, stride // 2 :: stride].flatten(1).cpu()
            for number in labels.unique().tolist():
                if number < classes:
                    here = values[:, labels == number]
                    wins[number] += (here[number] > here).sum(dim=1).numpy()
                    cells[number] += here.shape[1]
            top += band.shape[1]
    return np.divide(wins, cells[:, None], out=np.full_like(wins, np.nan), where=cells[:, None] > 0)


def warnings(names: tuple[str, ...], old: int, cells: np.ndarray, separated: np.ndarray) -> list[str]:
    """A line for each new class with little data, and for each that is confused with another class.

    Args:
        names: all classes; the first `old` are the old ones.
        cells: see `count_cells`.
        separated: see `separation`.

    Example:
        >>> share = np.array([[np.nan, np.nan], [0.54, np.nan]])
        >>> for line in warnings(("ship", "boat"), 1, np.array([0, 12]), share):
        ...     print(line)
        boat: only 12 cells of training data (fewer than 30); label more images of it
        boat: only 54 % of its held-out cells are separated from ship (50 % is chance)
    """
    lines = []
    for new in range(old, len(names)):
        if cells[new] < FEWEST:
            lines.append(
                f"{names[new]}: only {cells[new]} cells of training data (fewer than {FEWEST}); label more images of it"
            )
        lines += [
            f"{names[new]}: only {100 * separated[new, other]:.0f} % of its held-out cells are separated from"
            f" {names[other]} (50 % is chance)"
            for other in np.argsort(separated[new])
            if other != new and separated[new, other] < SEPARATED
        ]
    return lines

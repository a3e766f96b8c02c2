"""Metrics of one confusion matrix and of a sequence of them. Equations are in docs/metrics.md; all values in [0, 1].

A confusion matrix is (K, K), rows are the truth. With undecided pixels it is (K, K + 1): its last column has the pixels that
the prediction gives to no class, which are misses.

A class that does not occur in the truth is absent: NaN in arrays, left out of every mean, never 0. A metric without
measurements is None; `contseg.evaluation.remarks` has the reason. `measured` counts the values of a mean.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

BACKGROUND = 0
Absent = Literal["truth", "union"]
"""When a class is absent: if it does not occur in the truth, or in neither truth nor prediction."""


def class_iou(confusion: np.ndarray, epsilon: float = 0.0, absent: Absent = "truth") -> np.ndarray:
    """Intersection over union per class, TP / (truth + predicted - TP + epsilon): (K,), NaN where a class is absent.

    Args:
        confusion: (K, K), rows are the truth.
        epsilon: 0 is the definition; the released code of MiB and PLOP adds 1e-6.
        absent: a class that is predicted but not in the truth is left out with `truth`, and 0 with `union` (as in
            MMSegmentation and in the toolbox of IDRNet).

    Example:
        >>> class_iou(np.array([[2, 0, 0], [1, 1, 0], [0, 0, 0]]))
        array([0.66666667, 0.5       ,        nan])
        >>> class_iou(np.array([[2, 0, 1], [1, 1, 0], [0, 0, 0]]), absent="union")
        array([0.5, 0.5, 0. ])
        >>> class_iou(np.array([[1, 0, 1], [0, 2, 0]]))  # one undecided pixel
        array([0.5, 1. ])
    """
    hits = np.diag(confusion).astype(float)
    truth, predicted = confusion.sum(axis=1), _predicted(confusion)
    return _ratio(hits, truth + predicted - hits + epsilon, _present(confusion, absent))


def class_accuracy(confusion: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
    """Recall per class, TP / (truth + epsilon): (K,), NaN where a class is absent."""
    truth = confusion.sum(axis=1)
    return _ratio(np.diag(confusion).astype(float), truth + epsilon, truth > 0)


def class_precision(confusion: np.ndarray) -> np.ndarray:
    """TP / predicted: (K,), NaN where a class was never predicted.

    Example:
        >>> class_precision(np.array([[2, 0, 0], [2, 1, 0], [0, 0, 0]]))
        array([0.5, 1. , nan])
    """
    predicted = _predicted(confusion)
    return _ratio(np.diag(confusion).astype(float), predicted, predicted > 0)


def class_fscore(confusion: np.ndarray, beta: float = 1.0, absent: Absent = "truth") -> np.ndarray:
    """F score, (1 + b^2) P R / (b^2 P + R) of precision and recall: (K,), NaN where a class is absent. At beta 1 it is Dice.

    Computed from counts, (1 + b^2) TP / (b^2 truth + predicted), so that a class without any hit has 0.

    Args:
        absent: as of `class_iou`.

    Example:
        >>> class_fscore(np.array([[2, 0, 0], [2, 1, 0], [0, 0, 0]])).round(3)
        array([0.667, 0.5  ,   nan])
    """
    truth, predicted = confusion.sum(axis=1), _predicted(confusion)
    weight = beta * beta
    return _ratio((1 + weight) * np.diag(confusion), weight * truth + predicted, _present(confusion, absent))


def overall_accuracy(confusion: np.ndarray) -> float:
    """Share of correct pixels; NaN for an empty matrix."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def frequency_weighted_iou(confusion: np.ndarray, epsilon: float = 0.0) -> float:
    """Mean of IoU, weighted by the pixels of each class."""
    truth = confusion.sum(axis=1)
    if not truth.sum():
        return float("nan")
    return float(np.nansum(class_iou(confusion, epsilon) * truth) / truth.sum())


def mean_over(values: np.ndarray, members: np.ndarray) -> float | None:
    """Mean of the members that are not NaN; None if all are.

    Example:
        >>> mean_over(np.array([0.5, np.nan, 1.0]), np.array([True, True, True]))
        0.75
        >>> mean_over(np.array([np.nan]), np.array([True])) is None
        True
    """
    chosen = values[members & ~np.isnan(values)]
    return float(chosen.mean()) if len(chosen) else None


def harmonic(old: float | None, new: float | None) -> float | None:
    """2 old new / (old + new); None where one is absent, 0 where both are 0."""
    if old is None or new is None:
        return None
    return 2 * old * new / (old + new) if old + new else 0.0


def step_figures(confusion: np.ndarray, groups: Sequence[int], background: bool = True) -> dict:
    """Metrics of the confusion matrix after one step.

    Args:
        confusion: (K, K) over the classes seen so far.
        groups: the step that added each class, 0 for background; at least K values.
        background: whether the first class is background; otherwise it is an ordinary class.

    Returns:
        `iou` (a list, None where absent); the means `old` (classes of step 0), `new` (classes of later steps) and `all`,
        each without background and again as `..._with_background`; `harmonic` of old and new; `accuracy`; `measured`, for
        each mean the number of classes with a labelled pixel and of all its classes; `pixels`, the number counted.

    Example:
        >>> figures = step_figures(np.array([[6, 0, 2], [0, 0, 0], [1, 0, 3]]), groups=(0, 0, 1))
        >>> figures["old"], figures["new"], figures["measured"]["old"], figures["measured"]["all"], figures["pixels"]
        (None, 0.5, [0, 1], [1, 2], 12)
    """
    iou = class_iou(confusion)
    group = np.array(groups[: len(iou)])
    foreground = _foreground(len(iou), background)
    old, new = group == 0, group > 0
    members = {
        "old": old & foreground,
        "new": new,
        "all": foreground,
        "old_with_background": old,
        "all_with_background": old | new,
    }
    means = {key: mean_over(iou, chosen) for key, chosen in members.items()}
    return {
        "iou": [None if np.isnan(value) else float(value) for value in iou],
        **means,
        "harmonic": harmonic(means["old"], means["new"]),
        "accuracy": None if np.isnan(overall_accuracy(confusion)) else overall_accuracy(confusion),
        "measured": {key: [int((~np.isnan(iou[chosen])).sum()), int(chosen.sum())] for key, chosen in members.items()},
        "pixels": int(confusion.sum()),
    }


def class_forgetting(confusions: Sequence[np.ndarray]) -> np.ndarray:
    """Drop of each class from its best: max over earlier steps of IoU, minus the last IoU: (K,).

    Negative if a class improved. NaN for classes that are absent at the end or were not measured before the last step,
    such as those of the last step.
    """
    last = class_iou(confusions[-1])
    best = np.full(len(last), np.nan)
    for confusion in confusions[:-1]:
        iou = class_iou(confusion)
        best[: len(iou)] = np.fmax(best[: len(iou)], iou)
    return best - last


def run_figures(confusions: Sequence[np.ndarray], groups: Sequence[int], background: bool = True) -> dict:
    """Metrics of a whole run from the confusion matrix after each step; arguments as of `step_figures`.

    Returns:
        Those of `step_figures` for the last step; `average`: mean over steps of `all`; `average_with_background`;
        `forgetting`: mean of `class_forgetting` without background, None if no class was measured both before and after
        the last step, as in a run of one step; `class_forgetting`: a list, None where undefined. `measured` counts steps
        for `average`, and for `forgetting` the classes known before the last step.
    """
    each = [step_figures(confusion, groups, background) for confusion in confusions]
    fallen = class_forgetting(confusions)
    figures = dict(each[-1])
    for key in ("all", "all_with_background"):
        values = [figure[key] for figure in each if figure[key] is not None]
        average = key.replace("all", "average", 1)
        figures[average] = float(np.mean(values)) if values else None
        figures["measured"][average] = [len(values), len(each)]
    foreground = _foreground(len(fallen), background)
    figures["forgetting"] = mean_over(fallen, foreground)
    known_before = len(confusions[-2]) if len(confusions) > 1 else 0
    could = int(foreground[:known_before].sum())
    figures["measured"]["forgetting"] = [int((~np.isnan(fallen[foreground])).sum()), could]
    figures["class_forgetting"] = [None if np.isnan(value) else float(value) for value in fallen]
    return figures


def domain_figures(confusions: Sequence[np.ndarray], background: bool = True) -> dict:
    """Metrics of a run per domain, from the confusion matrices after each step.

    Args:
        confusions: (D, K, K) after each step, one matrix per domain; zero for future domains.
        background: as of `step_figures`.

    Returns:
        `domains`: (steps, D) mIoU without background, NaN where a domain was not measured; `domain_forgetting`: mean drop
        of the domains from their best, over those measured both before and after the last step; None if there are none.

    Example:
        >>> one, other = np.array([[8, 2], [2, 8]]), np.array([[5, 5], [5, 5]])
        >>> figures = domain_figures([np.stack([one, 0 * one]), np.stack([other, one])], background=False)
        >>> figures["domains"].round(2).tolist(), round(figures["domain_forgetting"], 2)
        ([[0.67, nan], [0.33, 0.67]], 0.33)
    """
    values = np.full((len(confusions), len(confusions[0])), np.nan)
    for step, matrices in enumerate(confusions):
        for domain, matrix in enumerate(matrices):
            mean = mean_over(class_iou(matrix), _foreground(len(matrix), background))
            values[step, domain] = np.nan if mean is None else mean
    best = np.fmax.reduce(values[:-1], axis=0) if len(values) > 1 else np.full(values.shape[1], np.nan)
    fallen = best - values[-1]
    return {"domains": values, "domain_forgetting": mean_over(fallen, np.ones(len(fallen), dtype=bool))}


def _foreground(classes: int, background: bool) -> np.ndarray:
    return np.arange(classes) != BACKGROUND if background else np.ones(classes, dtype=bool)


def _present(confusion: np.ndarray, absent: Absent) -> np.ndarray:
    truth = confusion.sum(axis=1) > 0
    return truth if absent == "truth" else truth | (_predicted(confusion) > 0)


def _predicted(confusion: np.ndarray) -> np.ndarray:
    """Pixels predicted as each class; undecided ones are left out."""
    return confusion.sum(axis=0)[: len(confusion)]


def _ratio(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=defined)

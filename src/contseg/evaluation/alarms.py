"""Warn when background IoU collapses: the most common failure of continual methods, hidden by means over classes."""

from collections.abc import Sequence

import numpy as np

from contseg.evaluation.metrics import BACKGROUND, class_iou

FALL = 0.5
"""The share of the previous value below which a metric counts as collapsed."""


def background_warnings(before: np.ndarray, after: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The warning if background's IoU or its predicted share fell by more than half from one step to the next.

    The share is relative to the truth: predicted pixels / true pixels of background, each from the step's own matrix. Plain
    shares of all pixels do not compare: the later matrix counts new classes and, under policy `mib`, images and pixels that
    the earlier one left out. Relative to the truth a perfect segmenter has 1 after every step. A share that falls while the
    IoU rises is no collapse: there was too much background before.

    Args:
        before, after: confusion matrices (K, K) of two successive steps, rows are the truth, background first, perhaps with
            a column of undecided pixels; the later one has as many classes or more.
        classes: names in output order, as many as the later matrix has rows.

    Returns:
        One line; or an empty list if nothing collapsed, or background is not tested (or not scored).

    Example:
        >>> before, names = np.array([[90, 10], [5, 45]]), ["background", "cat", "dog"]
        >>> (warning,) = background_warnings(before, np.array([[30, 5, 65], [0, 40, 10], [0, 0, 50]]), names)
        >>> print(warning.split(",")[0])
        background fell by more than half: IoU 85.7% -> 30.0%
        >>> background_warnings(before, np.array([[80, 10, 10], [5, 40, 5], [0, 0, 50]]), names)
        []
    """
    iou = [float(class_iou(matrix)[BACKGROUND]) for matrix in (before, after)]
    if np.isnan(iou).any():
        return []
    share = [float(matrix[:, BACKGROUND].sum() / matrix[BACKGROUND].sum()) for matrix in (before, after)]
    if not (iou[1] < FALL * iou[0] or (share[1] < FALL * share[0] and iou[1] <= iou[0])):
        return []
    return [
        f"background fell by more than half: IoU {iou[0]:.1%} -> {iou[1]:.1%},"
        f" predicted / true pixels {share[0]:.2f} -> {share[1]:.2f}; {_meaning(after, classes)}"
    ]


def _meaning(confusion: np.ndarray, classes: Sequence[str]) -> str:
    """The class that background is confused with, and what to check."""
    lost, gained = confusion[BACKGROUND].copy(), confusion[:, BACKGROUND].copy()
    truth = lost.sum()
    lost[BACKGROUND] = gained[BACKGROUND] = 0
    if lost.sum() >= gained.sum():
        name = [*classes[: len(confusion)], "undecided"][int(lost.argmax())]
        return (
            f"{lost.max() / truth:.0%} of it is predicted as '{name}'; possible causes are pseudo labels, distillation"
            " and a high learning rate; check the test images, the pseudo labels and the loss terms"
        )
    name = classes[int(gained.argmax())]
    return (
        f"'{name}' and others are predicted as background, forgotten or never learned; check the IoU of each"
        " class, the test images and the loss terms"
    )

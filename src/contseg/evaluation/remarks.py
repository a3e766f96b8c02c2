"""Remarks on metrics: why one was not measured, or which part of the classes it covers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from contseg.evaluation.metrics import BACKGROUND, run_figures, step_figures

MOST_NAMES = 8
ONE_STEP = "not measured, after one step nothing could be forgotten"


def step_remarks(
    confusion: np.ndarray,
    groups: Sequence[int],
    background: bool = True,
    names: Sequence[str] = (),
    annotated: np.ndarray | None = None,
) -> dict[str, str]:
    """Metric -> one sentence, for the metrics of `step_figures` that do not cover all classes so far.

    Args:
        confusion, groups, background: as of `step_figures`.
        names: class names in output order; without them, classes are only counted.
        annotated: (K,) bool, classes that the masks annotate (`Step.test`); None: all of them.

    Example:
        >>> counts = np.array([[6, 0, 2], [0, 0, 0], [1, 0, 3]])
        >>> for key, text in step_remarks(counts, (0, 0, 1), names=["background", "cat", "dog"]).items():
        ...     print(f"{key}: {text}")
        old: not measured, no class of step 0 is labelled in the test set
        all: over 1 of 2 classes; without a labelled pixel in the test set: cat
        harmonic: not measured, it needs old and new
    """
    figures = step_figures(confusion, groups, background)
    absent = [name for name, iou in zip(names, figures["iou"], strict=False) if iou is None]
    if background and figures["iou"][BACKGROUND] is None:
        absent = absent[1:]
    decided = _decided(confusion)
    found: dict[str, str] = {}
    for key, what in {"old": "class of step 0", "new": "class of a later step", "all": "class known so far"}.items():
        measured, known = figures["measured"][key]
        if known and not measured:
            found[key] = f"not measured, no {what} is labelled{decided} in the test set"
        elif measured < known:
            found[key] = f"over {measured} of {known} classes"
    if absent and "over" in found.get("all", ""):
        found["all"] += f"; without a labelled{decided} pixel in the test set: {listed(absent)}"
    if not figures["measured"]["new"][1]:
        found["new"] = "not measured, no class has come after step 0"
    if figures["harmonic"] is None:
        found["harmonic"] = "not measured, it needs old and new"
    return found | _of_background(figures, background, names, annotated)


def _of_background(
    figures: dict[str, Any], background: bool, names: Sequence[str], annotated: np.ndarray | None
) -> dict[str, str]:
    """Remarks on accuracy and on the IoU of background."""
    if not figures["pixels"]:
        return dict.fromkeys(("background", "accuracy"), "not measured, the test set has no labelled pixel")
    marked = () if annotated is None else annotated[BACKGROUND + 1 :]
    hidden = [name for name, there in zip(names[BACKGROUND + 1 :], marked, strict=False) if not there]
    missing = background and figures["iou"][BACKGROUND] is None
    if not hidden:
        return {"background": "not measured, no pixel of the test set counts as background"} if missing else {}
    text = f"pixels labelled background and predicted as {listed(hidden)} are not scored: no mask labels these classes"
    return {
        "background": f"not measured, {text}" if missing else text,
        "accuracy": f"over {figures['pixels']} pixels; {text}",
    }


def _decided(confusion: np.ndarray) -> str:
    """Words for matrices with a column of undecided pixels, which may not count."""
    return " and decided" if confusion.shape[1] > confusion.shape[0] else ""


def run_remarks(
    confusions: Sequence[np.ndarray],
    groups: Sequence[int],
    background: bool = True,
    names: Sequence[str] = (),
    annotated: np.ndarray | None = None,
) -> dict[str, str]:
    """As `step_remarks` of the last step, for the metrics of `run_figures`.

    Args:
        names, annotated: for the classes after the last step.

    Example:
        >>> run_remarks([np.array([[6, 2], [0, 4]])], (0, 0))["forgetting"]
        'not measured, after one step nothing could be forgotten'
    """
    figures = run_figures(confusions, groups, background)
    found = step_remarks(confusions[-1], groups, background, names, annotated)
    decided = _decided(confusions[-1])
    steps, of = figures["measured"]["average"]
    if not steps:
        found["average"] = f"not measured, no class is labelled{decided} in a test set"
    elif steps < of:
        found["average"] = (
            f"over {steps} of {of} steps; after the others no class known by then is labelled{decided} in the test set"
        )
    classes, could = figures["measured"]["forgetting"]
    if len(confusions) == 1:
        found["forgetting"] = ONE_STEP
    elif not classes:
        before = figures["iou"][int(background) : len(confusions[-2])]
        where = "the test set" if all(iou is None for iou in before) else "an earlier test set"
        found["forgetting"] = f"not measured, no old class is labelled{decided} in {where}"
    elif classes < could:
        found["forgetting"] = f"over {classes} of {could} old classes, those labelled in the test sets before and after"
    return found


def domain_remarks(figures: dict[str, Any], names: Sequence[str]) -> dict[str, str]:
    """As `run_remarks`, for the metrics of `domain_figures`.

    Example:
        >>> domain_remarks({"domains": np.array([[0.5, np.nan]]), "domain_forgetting": None}, ["Bonn", "Ulm"])["domains"]
        'without a labelled pixel in the test set: Ulm'
    """
    values = figures["domains"]
    found: dict[str, str] = {}
    absent = [name for name, value in zip(names, values[-1], strict=True) if np.isnan(value)]
    if absent:
        found["domains"] = f"without a labelled pixel in the test set: {listed(absent)}"
    if figures["domain_forgetting"] is None:
        nothing = "not measured, no domain was measured both before the last step and after it"
        found["domain_forgetting"] = ONE_STEP if len(values) == 1 else nothing
    return found


def listed(names: Sequence[str]) -> str:
    """The first names, and the number of further ones.

    Example:
        >>> listed(["a", "b"]), listed([str(number) for number in range(10)])
        ('a, b', '0, 1, 2, 3, 4, 5, 6, 7 and 2 more')
    """
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")

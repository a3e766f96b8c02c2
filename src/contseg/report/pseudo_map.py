"""The picture of pseudo labels: the labels that a method assigned to pixels, per epoch."""

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")  # works without a screen; must come before pyplot

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from contseg.report.figures import ON_A_PAGE

IGNORED, UNKNOWN, OTHERS = "ignored", "unknown", "other classes"
GREYS = {OTHERS: "#b7a57a", UNKNOWN: "#8c8c8c", IGNORED: "#dddddd"}
MOST_CLASSES = 16


Epochs = Sequence[tuple[int, Mapping[str, float]]]
"""For each epoch with pseudo labels: the step, and label to share of the epoch's pixels in [0, 1]."""


def pseudo_legend(epochs: Epochs, colours: Mapping[str, str]) -> dict[str, str]:
    """Label to colour in the drawing of `draw_pseudo_labels`, from top to bottom.

    Example:
        >>> pseudo_legend([(1, {"cat": 0.25, "ignored": 0.5})], {"cat": "#800000"})
        {'ignored': '#dddddd', 'cat': '#800000'}
    """
    labels = reversed(_bands([shares for _, shares in epochs], list(colours)))
    return {label: GREYS.get(label) or colours[label] for label in labels}


@matplotlib.rc_context(ON_A_PAGE)
def draw_pseudo_labels(epochs: Epochs, colours: Mapping[str, str]) -> Figure:
    """Stacked shares of the relabelled pixels per label over the epochs, with a gap between steps.

    Args:
        epochs: see `Epochs`.
        colours: class to colour, in output order. Beyond `MOST_CLASSES` classes, those with the fewest pixels are merged.

    Example:
        >>> figure = draw_pseudo_labels([(1, {"cat": 0.25, "ignored": 0.5})], {"cat": "#800000"})
        >>> len(figure.axes[0].patches)
        2
    """
    steps = list(dict.fromkeys(step for step, _ in epochs))
    bands = _bands([shares for _, shares in epochs], list(colours))
    figure, axis = plt.subplots(figsize=(9, 3.0))
    ends = [0.0]
    gap = max(0.25, 0.015 * len(epochs))
    for step in steps:
        found = [shares for other, shares in epochs if other == step]
        edges = ends[-1] + (gap if len(ends) > 1 else 0.0) + np.arange(len(found) + 1)
        top = np.zeros(len(found))
        for label, members in bands.items():
            bottom = top
            top = bottom + [100 * sum(shares.get(name, 0.0) for name in members) for shares in found]
            axis.stairs(
                top,
                edges,
                baseline=bottom,
                fill=True,
                facecolor=GREYS.get(label) or colours[label],
                edgecolor="0.55",  # classes may be white
                linewidth=0.4 if len(epochs) <= 60 else 0.1,
            )
        ends.append(edges[-1])
        middle = (edges[0] + edges[-1]) / 2
        axis.text(middle, -0.03, f"step {step}", ha="center", va="top", transform=axis.get_xaxis_transform())
    axis.set_xlim(0, ends[-1])
    axis.set_xticks([])
    axis.set_xlabel("epochs of each step", labelpad=20)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("pixels of the epoch in %")
    axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def _bands(epochs: Sequence[Mapping[str, float]], classes: Sequence[str]) -> dict[str, list[str]]:
    """The bands of the stack from the bottom, and the labels in each band."""
    total = {name: sum(shares.get(name, 0.0) for shares in epochs) for name in [*classes, UNKNOWN, IGNORED]}
    there = [name for name in classes if total[name]]
    shown = set(sorted(there, key=total.__getitem__, reverse=True)[:MOST_CLASSES])
    bands = {name: [name] for name in there if name in shown}
    if len(there) > len(shown):
        bands[OTHERS] = [name for name in there if name not in shown]
    return bands | {name: [name] for name in (UNKNOWN, IGNORED) if total[name]}

"""The picture of pseudo labels: which labels a method gave to pixels, epoch by epoch."""

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")  # before pyplot: no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from contseg.report.figures import plain

IGNORED, UNKNOWN, OTHERS = "ignored", "unknown", "other classes"
GREYS = {OTHERS: "#b7a57a", UNKNOWN: "#8c8c8c", IGNORED: "#dddddd"}
MOST_CLASSES = 16


def draw_pseudo_labels(epochs: Sequence[tuple[int, Mapping[str, float]]], colours: Mapping[str, str]) -> Figure:
    """Stacked shares of the pixels that were given another label, per label over the epochs; steps stand apart.

    Args:
        epochs: of each epoch with pseudo labels, in order: the step, and label -> share of the epoch's pixels in [0, 1].
        colours: class -> colour, in output order. Beyond `MOST_CLASSES` classes, those with the fewest pixels are drawn as
            one.

    Example:
        >>> figure = draw_pseudo_labels([(1, {"cat": 0.25, "ignored": 0.5})], {"cat": "#800000"})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['ignored', 'cat']
    """
    steps = list(dict.fromkeys(step for step, _ in epochs))
    bands = _bands([shares for _, shares in epochs], list(colours))
    figure, axis = plt.subplots(figsize=(11, 3.4))
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
                label=plain(label) if step == steps[0] else None,
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
    handles, names = axis.get_legend_handles_labels()
    # in the order of the stack, from the top
    axis.legend(
        handles[::-1],
        names[::-1],
        frameon=False,
        fontsize=9,
        handlelength=1.2,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.04),
        ncols=1 + (len(names) > 11),
    )
    return figure


def _bands(epochs: Sequence[Mapping[str, float]], classes: Sequence[str]) -> dict[str, list[str]]:
    """What is drawn on top of each other, from the bottom, and the labels that each band holds."""
    total = {name: sum(shares.get(name, 0.0) for shares in epochs) for name in [*classes, UNKNOWN, IGNORED]}
    there = [name for name in classes if total[name]]
    shown = set(sorted(there, key=total.__getitem__, reverse=True)[:MOST_CLASSES])
    bands = {name: [name] for name in there if name in shown}
    if len(there) > len(shown):
        bands[OTHERS] = [name for name in there if name not in shown]
    return bands | {name: [name] for name in (UNKNOWN, IGNORED) if total[name]}

"""The drawings of a sweep: curves with bands, old against new classes, accuracy against cost."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from contseg.report.figures import CURVES, ON_A_PAGE, Drawing, drawing, plain_numbers, run_style
from contseg.sweeps.outcomes import Outcomes


@rc_context(ON_A_PAGE)
def band_curves(outcomes: Outcomes) -> dict[str, Drawing]:
    """Mean mIoU against steps and a band of a standard deviation over all runs: title to drawing.

    A method of one step is a horizontal line.
    """
    steps = max(len(one.series["all"]) for one in outcomes.found.values())
    drawn = {}
    for key, title in CURVES.items():
        axis = _axis(4.2, 3.0)
        for position, row in enumerate(outcomes.shown):
            mean, deviation = mean_curve([one.series[key] for one in outcomes.of(row).values()])
            style, places = run_style(position), np.arange(len(mean))
            if len(mean) == 1 and steps > 1:
                mean, deviation, places = mean.repeat(2), deviation.repeat(2), np.array([0, steps - 1])
                axis.plot(places, mean, linewidth=1.5, **style)
            else:
                axis.plot(places, mean, marker="o", markersize=4, **style)
            axis.fill_between(places, mean - deviation, mean + deviation, color=style["color"], alpha=0.18, linewidth=0)
        axis.set_xlabel("after step")
        axis.set_xticks(range(0, steps, 1 + (steps - 1) // 12))
        axis.set_ylim(0, 100)
        axis.set_ylabel("mIoU in %")
        drawn[title] = _finished(axis)
    return drawn


def mean_curve(series: Sequence[Sequence[float | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1; 0 for one value) of several curves at each step; NaN where none was measured.

    Example:
        >>> mean, deviation = mean_curve([[1.0, None, None], [3.0, 2.0, None]])
        >>> mean.tolist(), deviation.round(2).tolist()
        ([2.0, 2.0, nan], [1.41, 0.0, nan])
    """
    columns = [[value for value in step if value is not None] for step in zip(*series, strict=True)]
    means = [np.mean(values) if values else np.nan for values in columns]
    deviations = [np.std(values, ddof=1) if len(values) > 1 else np.nan if not values else 0.0 for values in columns]
    return np.array(means, dtype=float), np.array(deviations, dtype=float)


@rc_context(ON_A_PAGE)
def old_against_new(outcomes: Outcomes) -> Drawing:
    """Stability (old) against plasticity (new): a dot per run, a large one per method with its deviations over runs."""
    axis = _axis(4.6, 3.6)
    for position, row in enumerate(outcomes.shown):
        both = [(one.figures["old"], one.figures["new"]) for one in outcomes.of(row).values()]
        points = np.array([pair for pair in both if None not in pair], dtype=float).reshape(-1, 2)
        _scatter(axis, points, run_style(position)["color"])
    axis.set_xlabel("old classes, mIoU in %")
    axis.set_ylabel("new classes, mIoU in %")
    return _finished(axis)


@rc_context(ON_A_PAGE)
def accuracy_against_cost(outcomes: Outcomes) -> Drawing:
    """mIoU of all classes against the minutes of a run, on a logarithmic axis."""
    axis = _axis(4.6, 3.6)
    for position, row in enumerate(outcomes.shown):
        both = [(one.costs["seconds"], one.figures["all"]) for one in outcomes.of(row).values()]
        points = np.array([(pair[0] / 60, pair[1]) for pair in both if None not in pair and pair[0]], dtype=float)
        _scatter(axis, points.reshape(-1, 2), run_style(position)["color"])
    axis.set_xscale("log")
    plain_numbers(axis.xaxis)
    axis.set_xlabel("minutes of a run")
    axis.set_ylabel("all classes, mIoU in %")
    return _finished(axis)


def _axis(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height))[1]


def _scatter(axis: Axes, points: np.ndarray, colour: str) -> None:
    if not len(points):
        return
    axis.scatter(points[:, 0], points[:, 1], s=16, color=colour, alpha=0.7, linewidths=0)
    spread = points.std(axis=0, ddof=1) if len(points) > 1 else np.zeros(2)
    mean = points.mean(axis=0)
    axis.errorbar(mean[:1], mean[1:], xerr=spread[:1], yerr=spread[1:], fmt="o", markersize=8, color=colour, linewidth=1)


def _finished(axis: Axes) -> Drawing:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return drawing(axis.figure)  # type: ignore[arg-type]

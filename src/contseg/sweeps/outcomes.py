"""The finished runs of a sweep, with metrics that are computed from their confusion matrices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contseg.engine.panoptic_sums import panoptic_of
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.metrics import class_iou, run_figures, step_figures
from contseg.sweeps.aggregate import Values
from contseg.sweeps.beside import joint_of
from contseg.sweeps.cells import Cell, Row
from contseg.sweeps.sweep import Sweep

FIGURES = {
    "old": "old", "new": "new", "all": "all", "forgetting": "forgetting", "harmonic": "hIoU", "average": "average",
}  # fmt: skip
"""Metric to title."""

QUALITIES, GROUPS = ("pq", "sq", "rq"), ("old", "new", "all")
QUALITY = {f"{key}_{group}": f"{key.upper()} {group}" for key in QUALITIES for group in GROUPS}
"""Metric of segments to title."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run reached and needed.

    Attributes:
        figures: metrics in percent, as of `run_figures`, and those of `QUALITY`; None if not measured.
        series: `all`, `old` and `new` after each step, in percent; None if not measured.
        iou: name of each class, with background, to its IoU in percent after the last step, NaN if absent.
        iou_series: name of each class to its IoU in percent after each step; None before it was added, and if absent.
        steps: name of each class to the step that added it.
        costs: `seconds` of the run, `peak_memory` in MB, `trained_parameters` of the last step, and `stored` in MB, the
            largest state of the method between two steps; None if not recorded.
    """

    figures: Mapping[str, float | None]
    series: Mapping[str, Sequence[float | None]]
    iou: Mapping[str, float]
    iou_series: Mapping[str, Sequence[float | None]]
    steps: Mapping[str, int]
    costs: Mapping[str, float | None]


def outcome_of(run: Run) -> Outcome:
    """The outcome of a run with at least one finished step.

    Raises:
        ContsegError: a confusion matrix is missing or damaged.
    """
    confusions, groups, background = run.confusions(), run.groups(), run.has_background()
    each = [step_figures(confusion, groups, background) for confusion in confusions]
    figures, ious = run_figures(confusions, groups, background), [class_iou(confusion) for confusion in confusions]
    names = [str(name) for name in run.arrays("samples.npz")["classes"]]
    percents = {key: _percent(value) for key, value in figures.items() if value is None or isinstance(value, float)}
    return Outcome(
        figures=percents | quality_figures(panoptic_of(run), 100),
        series={key: [_percent(figure[key]) for figure in each] for key in ("all", "old", "new")},
        iou={name: 100 * float(value) for name, value in zip(names, ious[-1], strict=False)},
        iou_series={name: [_value(iou, place) for iou in ious] for place, name in enumerate(names)},
        steps=dict(zip(names, groups, strict=False)),
        costs=_costs([line for line in run.metrics() if line["kind"] == "step"]),
    )


def quality_figures(found: Mapping[str, Any] | None, times: float = 1) -> dict[str, float | None]:
    """The metrics of `QUALITY`, None if not measured.

    Args:
        found: means by quality and group, as of `panoptic_run`, or as in summary.json; None or without any: not measured.
        times: 100 for percent of shares.

    Example:
        >>> quality_figures({key: {"old": 0.5, "new": None, "all": 0.25} for key in QUALITIES}, 100)["pq_old"]
        50.0
        >>> quality_figures(None) == dict.fromkeys(QUALITY)
        True
    """
    means = {(key, group): (found or {}).get(key, {}).get(group) for key in QUALITIES for group in GROUPS}
    return {f"{key}_{group}": None if value is None else times * value for (key, group), value in means.items()}


def _value(iou: np.ndarray, place: int) -> float | None:
    return None if place >= len(iou) or np.isnan(iou[place]) else 100 * float(iou[place])


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _costs(steps: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The costs of a run from the lines of its steps; None if a step has none, as in runs of earlier versions."""

    def all_of(key: str) -> list[float]:
        values = [line.get(key) for line in steps]
        return [] if None in values else values  # type: ignore[return-value]

    seconds, memory, stored = all_of("seconds"), all_of("peak_memory"), all_of("stored_bytes")
    return {
        "seconds": sum(seconds) if seconds else None,
        "peak_memory": max(memory) / 1e6 if memory else None,
        "trained_parameters": steps[-1].get("trained_parameters") if steps else None,
        "stored": max(stored) / 1e6 if stored else None,
    }


@dataclass(frozen=True)
class Outcomes:
    """The finished runs of a sweep.

    Attributes:
        sweep: the description.
        rows: by name.
        cells: of all runs, finished or not.
        found: outcome of each finished run by its row, seed and order.
        damaged: title of each finished run that cannot be read, and why.
    """

    sweep: Sweep
    rows: Mapping[str, Row]
    cells: Sequence[Cell]
    found: Mapping[tuple[str, int, str], Outcome]
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> list[Cell]:
        """The finished runs."""
        return [cell for cell in self.cells if (cell.row, cell.seed, cell.order) in self.found]

    def of(self, row: str) -> dict[tuple[int, str], Outcome]:
        """The finished runs of a row by seed and order."""
        return {(seed, order): outcome for (name, seed, order), outcome in self.found.items() if name == row}

    def figure(self, row: str, key: str) -> Values:
        """A metric of the runs of a row in which it was measured."""
        values = {place: outcome.figures[key] for place, outcome in self.of(row).items()}
        return {place: value for place, value in values.items() if value is not None}

    @property
    def quality(self) -> dict[str, str]:
        """`QUALITY` if a run measured segments, else {}."""
        return QUALITY if any(one.figures[key] is not None for one in self.found.values() for key in QUALITY) else {}

    def cost(self, row: str, key: str) -> Values:
        """A cost of the runs of a row that recorded it."""
        values = {place: outcome.costs[key] for place, outcome in self.of(row).items()}
        return {place: value for place, value in values.items() if value is not None}

    def joint(self, row: str) -> Values:
        """`all` of joint training on the network and data of a row; empty without such a row."""
        name = joint_of(row, self.rows)
        return self.figure(name, "all") if name else {}

    @property
    def shown(self) -> list[str]:
        """The rows with a finished run."""
        return [name for name in self.rows if self.of(name)]


def read_outcomes(path: Path) -> Outcomes:
    """The finished runs of a sweep.

    Args:
        path: folder with `sweep.yaml`, or that file; the runs are next to it.

    Raises:
        ContsegError: see `Sweep.read` and `Sweep.rows`; or no run is finished.
    """
    sweep, folder = Sweep.read(path), path if path.is_dir() else path.parent
    cells = sweep.cells(folder)
    found, damaged = _found(cells)
    if not found:
        reasons = "".join(f"; {problem}" for problem in damaged.values())
        raise ContsegError(f"{folder}: no run is finished yet, so there is nothing to tabulate{reasons}")
    return Outcomes(sweep, sweep.rows(), cells, found, damaged)


def _found(cells: Iterable[Cell]) -> tuple[dict[tuple[str, int, str], Outcome], dict[str, str]]:
    """The outcomes of the finished runs, and what is wrong with those that are damaged."""
    found, damaged = {}, {}
    for cell in cells:
        try:
            if cell.run.summary() is None:
                continue
            cell.run.manifest.check(cell.folder / "recipe.yaml")
            if cell.begun:
                found[cell.row, cell.seed, cell.order] = outcome_of(cell.run)
        except ContsegError as error:
            damaged[cell.title] = str(error)
    return found, damaged

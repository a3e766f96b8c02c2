"""The page of a sweep: a self-contained HTML file."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contseg.atomic import writable, write_text
from contseg.errors import counted
from contseg.replaceable import require_replaceable
from contseg.report.figures import curve, run_style
from contseg.report.header import facts_line
from contseg.report.page import MARK, environment
from contseg.report.tables import FOLDED
from contseg.sweeps.aggregate import spread_of
from contseg.sweeps.charts import accuracy_against_cost, band_curves, mean_curve, old_against_new
from contseg.sweeps.outcomes import Outcome, Outcomes, read_outcomes
from contseg.sweeps.page import read_results, result_warnings
from contseg.sweeps.published import published_blocks, published_sheets
from contseg.sweeps.results import costs_sheet, differences_sheets, means_sheet, quality_sheets

PAGE = "sweep.html"


def write_sweep_report(path: Path, out: Path | None = None) -> Path:
    """Write the page of a sweep; everything in it is recomputed from the folders of its runs.

    Args:
        path: folder with `sweep.yaml`, or that file.
        out: the page; default: `sweep.html` in the folder.

    Returns:
        the path of the page.

    Raises:
        ContsegError: see `read_outcomes`; or `out` exists and is no report, or cannot be written.
    """
    folder = path if path.is_dir() else path.parent
    out = out or folder / PAGE
    require_replaceable(out, MARK)
    page = environment("contseg.sweeps").get_template("sweep.html").render(_content(read_outcomes(path), folder))
    with writable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page, shared=True)
    return out


def _content(outcomes: Outcomes, folder: Path) -> dict[str, Any]:
    """What the template shows."""
    styles = {outcomes.rows[name].label: run_style(place) for place, name in enumerate(outcomes.shown)}
    return {
        "title": f"sweep of {', '.join(outcomes.sweep.recipes)}",
        "facts": _facts(outcomes),
        "command": shlex.join(["contseg", "sweep", str(folder)]),
        "sentences": sentences(outcomes),
        "warnings": [("", warning) for warning in result_warnings(read_results(outcomes.finished))],
        "methods": styles,
        "means": means_sheet(outcomes),
        "segments": quality_sheets(outcomes),
        "costs": costs_sheet(outcomes),
        "differences": differences_sheets(outcomes),
        "published": published_sheets(published_blocks(outcomes)),
        "curves": band_curves(outcomes),
        "old_against_new": old_against_new(outcomes),
        "accuracy_against_cost": accuracy_against_cost(outcomes),
        "classes": class_rows(outcomes),
        "class_curves": class_curves(outcomes),
        "orders": order_tables(outcomes),
        "folded": FOLDED,
    }


def _facts(outcomes: Outcomes) -> dict[str, str]:
    runs = {
        f"{cell.row}/{cell.name}": {
            "environment": cell.run.environment(),
            "seconds": outcomes.found[cell.row, cell.seed, cell.order].costs["seconds"] or 0,
            "plan": {"hash": cell.run.plan_hash},
        }
        for cell in outcomes.finished
    }
    seeds = sorted({seed for _, seed, _ in outcomes.found})
    orders = list(dict.fromkeys(order for _, _, order in outcomes.found))
    return {
        "runs": f"{len(outcomes.finished)} of {len(outcomes.cells)}",
        "seeds": ", ".join(map(str, seeds)),
        "orders": ", ".join(orders),
        **facts_line(runs),
    }


def sentences(outcomes: Outcomes) -> dict[str, str]:
    """What the methods with several steps learned, kept and lost, a sentence each; none without such methods."""
    words = {
        "learned": ("new", "mIoU of new classes after the last step: {}."),
        "kept": ("old", "mIoU of classes of step 0 after the last step: {}."),
        "lost": ("forgetting", "Points that a class lost since its best earlier IoU: {}."),
    }
    learners = [name for name in outcomes.shown if outcomes.figure(name, "forgetting")]
    found = {word: (text, _range(outcomes, learners, key)) for word, (key, text) in words.items()}
    return {word: text.format(numbers) for word, (text, numbers) in found.items() if numbers}


def _range(outcomes: Outcomes, rows: Sequence[str], key: str) -> str:
    unit = "" if key == "forgetting" else " %"
    spreads = {outcomes.rows[name].label: spread_of(outcomes.figure(name, key)) for name in rows}
    means = sorted((one.mean, label) for label, one in spreads.items() if one)
    if not means:
        return ""
    (low, worst), (high, best) = means[0], means[-1]
    runs = counted(sum(one.runs for one in spreads.values() if one), "run")
    if len(means) == 1:
        return f"{low:.1f}{unit} on average ({best}, {runs})"
    return f"{low:.1f} ({worst}) to {high:.1f}{unit} ({best}) on average over {runs}"


def class_rows(outcomes: Outcomes) -> dict[str, list[dict[str, Any]]]:
    """Name of each class to its IoU in each method: `mean` and `deviation` over all runs in [0, 1], None if not measured."""
    names = list(dict.fromkeys(name for one in outcomes.found.values() for name in one.iou))
    return {
        name: [_mean_of([one.iou for one in outcomes.of(row).values()], name) for row in outcomes.shown] for name in names
    }


def class_curves(outcomes: Outcomes) -> dict[str, list[str]]:
    """Name of each class to a path per method: its IoU after each step, mean over the runs that have it, see `curve`.

    There are none for sweeps of one step.
    """
    steps = max(len(one.series["all"]) for one in outcomes.found.values())
    names = list(dict.fromkeys(name for one in outcomes.found.values() for name in one.iou))
    if steps < 2:
        return {}
    return {name: [_curve_of(list(outcomes.of(row).values()), name, steps) for row in outcomes.shown] for name in names}


def _curve_of(runs: Sequence[Outcome], name: str, steps: int) -> str:
    series = [run.iou_series[name] for run in runs if name in run.iou_series]
    if not series:
        return ""
    means = mean_curve(series)[0] / 100
    return curve([None if np.isnan(mean) else float(mean) for mean in means], steps)


def _mean_of(each: Sequence[Mapping[str, float]], name: str) -> dict[str, Any]:
    values = np.array([one[name] / 100 for one in each if name in one and not np.isnan(one[name])])
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()) if len(values) else None, "deviation": deviation}


def order_tables(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """Label of each method with several class orders to `orders` and `rows`: class to a cell per order.

    A cell has `mean`, the IoU over the seeds in [0, 1], and `step`, which added the class in this order.
    """
    tables = {}
    for row in outcomes.shown:
        found = outcomes.of(row)
        orders = list(dict.fromkeys(order for _, order in found))
        if len(orders) < 2:
            continue
        groups = {order: [one for (_, other), one in found.items() if other == order] for order in orders}
        names = list(dict.fromkeys(name for one in found.values() for name in one.iou))
        rows = {
            name: [
                _mean_of([one.iou for one in group], name) | {"step": group[0].steps.get(name)} for group in groups.values()
            ]
            for name in names
        }
        tables[outcomes.rows[row].label] = {"orders": orders, "rows": rows}
    return tables

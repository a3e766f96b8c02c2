"""The results page of a sweep: setup, means and standard deviations over seeds, and notes that are kept."""

import json
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contseg.atomic import write_text
from contseg.engine.inputs import marks
from contseg.errors import ContsegError
from contseg.sweeps.cells import OWN, Cell, Row
from contseg.sweeps.origin import ORIGIN
from contseg.sweeps.outcomes import QUALITY, quality_figures

NOTES = ("<!-- notes -->", "<!-- /notes -->")
FIGURES = ("old", "new", "all", "forgetting")


@dataclass(frozen=True)
class Page:
    """The rows and texts of a results page.

    Args:
        command: the command that trains the rows and writes the page.
        title: title of the page.
        caption: explanation of the columns.
        sections: title to rows by name; the rows of a section are compared with its first one.
        alone: text before the commands of single rows.
    """

    command: str
    title: str
    caption: str
    sections: Mapping[str, Mapping[str, Row]]
    alone: str = ""

    @property
    def rows(self) -> dict[str, Row]:
        """The rows of all sections by name, which is also the folder of their runs."""
        return {name: row for rows in self.sections.values() for name, row in rows.items()}

    @property
    def seeds(self) -> list[int]:
        """The seeds of all rows."""
        return sorted({seed for row in self.rows.values() for seed in row.seeds})


@dataclass(frozen=True)
class Result:
    """A finished run on the page.

    Args:
        figures: metrics in percent, also those of segments (`QUALITY`) if there are any; None if not measured.
        notes: metric to the reason why it is None, or to the classes that it covers.
        changes: the `marks` of the run, such as changes that were accepted when it was resumed.
        seconds: time of one core, without steps from the cache.
        plan: hash of the plan.
        scenario: dataset and scenario as text; runs of the same scenario should have the same plan.
        versions, machines, commits: that the run was trained with.
    """

    figures: Mapping[str, float | None]
    seconds: float
    plan: str
    scenario: str
    versions: str = ""
    machines: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


Results = Mapping[tuple[str, str], Result]
"""Finished runs by name of their row and of the run in it, see `Row.runs`."""


def read_results(cells: Iterable[Cell]) -> dict[tuple[str, str], Result]:
    """The finished runs of the cells; runs of other recipes are skipped."""
    return {(cell.row, cell.name): _read(cell) for cell in cells if cell.finished}


def _read(cell: Cell) -> Result:
    summary = cell.run.summary() or {}
    made = cell.run.environment()
    place = cell.folder / ORIGIN
    origins = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()] if place.is_file() else []
    recipe = cell.recipe.model_dump(mode="json")
    return Result(
        figures={name: summary[name] for name in FIGURES} | (quality_figures(summary) if "pq" in summary else {}),
        seconds=summary["seconds"],
        plan=summary["plan"],
        scenario=json.dumps([recipe["data"]["dataset"], recipe["data"]["options"], recipe["scenario"]], sort_keys=True),
        versions=f"Python {made['python']}, PyTorch {made['torch']}, NumPy {made['numpy']}, {made['system']}",
        machines=tuple(f"{origin['cpu']}, {origin['cores']} cores" for origin in origins),
        commits=tuple(origin["commit"] for origin in origins),
        notes=summary.get("notes", {}),
        changes=tuple(marks(cell.run)),
    )


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and sample standard deviation (over n - 1); one value has no deviation.

    Example:
        >>> spread([1.0, 2.0, 3.0]), spread([2.0]), spread([]), spread([2.0], "+")
        ('2.0 ± 1.0', '2.0', '-', '+2.0')
    """
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.1f}{deviation}"


def differences(results: Results, row: str, base: str, figure: str = "old") -> list[float]:
    """The differences in a metric between two rows, for each seed and order that both have finished."""
    pairs = [
        (results[row, run].figures.get(figure), results[base, run].figures.get(figure))
        for name, run in results
        if name == row and (base, run) in results
    ]
    return [one - other for one, other in pairs if one is not None and other is not None]


def plan_warnings(results: Results) -> list[str]:
    """A line for every scenario whose runs have different plans, that is, were not trained on the same data."""
    found: dict[str, dict[str, list[str]]] = {}
    for (row, run), result in results.items():
        found.setdefault(result.scenario, {}).setdefault(result.plan, []).append(f"{row} ({run})")
    return [
        "runs of one scenario differ in their plans: "
        + "; ".join(f"{plan}: {', '.join(runs)}" for plan, runs in plans.items())
        for plans in found.values()
        if len(plans) > 1
    ]


def result_warnings(results: Results) -> list[str]:
    """`plan_warnings`, and a line for every mark of a run."""
    marked = [f"{row} ({seed}): {change}" for (row, seed), result in results.items() for change in result.changes]
    return [*plan_warnings(results), *marked]


def page(
    sweep: Page,
    results: Results,
    overrides: Sequence[str] = (),
    seconds: float | None = None,
    notes: str = "\n",
) -> str:
    """The page as Markdown.

    Args:
        overrides: overrides of every recipe.
        seconds: wall-clock time over all starts of the command; None if unknown.
        notes: the notes to keep.
    """
    wanted = [(name, run) for name, row in sweep.rows.items() for run in row.runs()]
    shown = {key: results[key] for key in wanted if key in results}
    parts = [
        f"# {sweep.title}\n",
        "This page is generated; only the notes at the end are written by hand.\n",
        *_setup(sweep, shown, len(wanted), overrides, seconds),
        _filled(
            "mIoU in % after the last step, background not counted: mean ± standard deviation (n - 1) over n finished"
            f" {_runs(sweep)}."
        ),
        f"{sweep.caption}\n",
    ]
    for title, rows in sweep.sections.items():
        parts += [f"## {title}\n", _section(rows, shown)]
    missing = _missing(sweep.rows, shown)
    if missing:
        parts.append(_filled(f"Not finished ({_runs(sweep)}): {missing}.") + "\n")
    parts += ["## Notes\n", f"{NOTES[0]}{notes}{NOTES[1]}\n", "## One row alone\n"]
    parts += [f"{sweep.alone}\n"] if sweep.alone else []
    return "\n".join([*parts, _commands(sweep.rows, overrides)])


def _filled(text: str) -> str:
    """A paragraph in short lines."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def _setup(sweep: Page, results: Results, wanted: int, overrides: Sequence[str], seconds: float | None) -> list[str]:
    def each(name: str) -> str:
        values = [getattr(result, name) for result in results.values()]
        flat = [value for one in values for value in ([one] if isinstance(one, str) else one)]
        return "; ".join(dict.fromkeys(flat)) or "-"

    core = sum(result.seconds for result in results.values())
    clock = "" if seconds is None else f"{seconds / 60:.0f} min of wall-clock time, "
    changed = f", every recipe with `{' '.join(overrides)}`" if overrides else ""
    facts = {
        "command": f"`{sweep.command}`{changed}",
        "runs": f"{len(results)} of {wanted} finished, seeds {', '.join(map(str, sweep.seeds))}{_orders(sweep)}",
        "commit": each("commits"),
        "machine": each("machines"),
        "versions": each("versions"),
        "time": f"{clock}{core / 60:.0f} min of one core",
        "plans": _plans(sweep, results),
    }
    warnings = [f"**Warning**: {warning}.\n" for warning in result_warnings(results)]
    return ["| | |\n|---|---|\n" + "".join(f"| {name} | {text} |\n" for name, text in facts.items()), *warnings]


def _orders(sweep: Page) -> str:
    orders = [order for order in dict.fromkeys(order for row in sweep.rows.values() for order in row.orders) if order != OWN]
    return f", class orders: own, {', '.join(orders)}" if orders else ""


def _runs(sweep: Page) -> str:
    """What the runs of a row differ in."""
    return "seeds x orders" if _orders(sweep) else "seeds"


def _plans(sweep: Page, results: Results) -> str:
    """The plan hashes with their rows; their number, if there are several class orders."""
    rows: dict[str, list[str]] = {}
    for (row, _), result in results.items():
        if row not in rows.setdefault(result.plan, []):
            rows[result.plan].append(row)
    if _orders(sweep) and rows:
        return f"{len(rows)}, which differ by scenario and class order"
    ordered = sorted(rows.items(), key=lambda item: len(item[1]))
    return "; ".join(f"{plan} ({', '.join(names)})" for plan, names in ordered) or "-"


def _section(rows: Mapping[str, Row], results: Results) -> str:
    base = next(iter(rows))
    titles = ["method", *FIGURES, f"old, against {rows[base].label}", "n"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    behind, remarks = [], {}  # type: ignore[var-annotated]
    for name, row in rows.items():
        mine = [results[name, run] for run in row.runs() if (name, run) in results]
        figures = [spread([value for result in mine if (value := result.figures[key]) is not None]) for key in FIGURES]
        gains = differences(results, name, base)
        against = "-" if name == base else spread(gains, "+")
        if gains and len(gains) < len(mine):
            against += f" (n = {len(gains)})"
        if name != base and gains and statistics.fmean(gains) <= 0:
            behind.append(row.label)
        for key in FIGURES:
            for text in {result.notes[key]: None for result in mine if key in result.notes}:
                remarks.setdefault(f"{key}: {text}", []).append(row.label)
        lines.append(f"| {' | '.join([row.label, *figures, against, str(len(mine))])} |")
    judged = f"\nMean of old classes not above that of {rows[base].label}: {', '.join(behind)}.\n" if behind else ""
    remarked = "".join(f"\n{', '.join(labels)}: {text}.\n" for text, labels in remarks.items())
    return "\n".join(lines) + f"\n{judged}{remarked}{_quality(rows, results)}"


def _quality(rows: Mapping[str, Row], results: Results) -> str:
    """The table of panoptic quality; empty if no run measured it."""
    found = {
        name: [results[name, run].figures for run in row.runs() if (name, run) in results] for name, row in rows.items()
    }
    if all(one.get(key) is None for runs in found.values() for one in runs for key in QUALITY):
        return ""
    base = next(iter(rows))
    titles = ["method", *QUALITY.values(), f"PQ old, against {rows[base].label}", "n"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name, runs in found.items():
        means = [spread([value for one in runs if (value := one.get(key)) is not None]) for key in QUALITY]
        gains = [] if name == base else differences(results, name, base, "pq_old")
        measured = sum(one.get("pq_all") is not None for one in runs)
        against = spread(gains, "+") + (f" (n = {len(gains)})" if 0 < len(gains) < measured else "")
        lines.append(f"| {' | '.join([rows[name].label, *means, against, str(measured)])} |")
    caption = "Panoptic quality of segments in %, likewise; n: runs that measured it; a dash: not measured."
    return f"\n{caption}\n\n" + "\n".join(lines) + "\n"


def _missing(rows: Mapping[str, Row], results: Results) -> str:
    """Rows with the runs that are not finished; "all" for many."""
    parts = []
    for name, row in rows.items():
        left = [run.replace(",", " ") for run in row.runs() if (name, run) not in results]
        if left:
            parts.append(f"{name} {'all' if len(left) == len(row.runs()) > 3 else ', '.join(left)}")
    return "; ".join(parts)


def _commands(rows: Mapping[str, Row], overrides: Sequence[str]) -> str:
    lines = [
        f"    {training_command(row.recipe, *row.overrides, *overrides, f'training.seed={row.seeds[0]}')}\n"
        for row in rows.values()
    ]
    return "".join(lines)


def training_command(*words: str) -> str:
    """The shell command that trains a recipe.

    Example:
        >>> training_command("digits/plop_5-1", "training.epochs=[9, 5]")
        'contseg train digits/plop_5-1 "training.epochs=[9, 5]"'
    """
    return " ".join(["contseg train", *(f'"{word}"' if set(word) & set(" {}[]") else word for word in words)])


def kept_notes(path: Path) -> str:
    """The notes of an existing page, between the marks `NOTES`.

    Raises:
        ContsegError: the file is no such page, or a mark is missing or occurs twice, so that notes might be lost.
    """
    if not path.is_file():
        return "\n"
    text = path.read_text(encoding="utf-8")
    counts = [text.count(mark) for mark in NOTES]
    before, _, rest = text.partition(NOTES[0])
    if counts != [1, 1] or NOTES[1] in before:
        raise ContsegError(
            f"{path}: expected a page with one {NOTES[0]} and one {NOTES[1]} after it; correct it, or move the file, so"
            " that no note is lost"
        )
    return rest.partition(NOTES[1])[0]


def write(path: Path, text: str) -> None:
    """Write a text file atomically; several leaders of a sweep may write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text, shared=True)

"""The page of `benchmarks.frontier`: a table per protocol, and the goals that the default method meets or misses."""

import json
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contseg.cli.console import console
from contseg.cli.sweep_progress import read_clock
from contseg.engine.run import Run
from contseg.evaluation.metrics import domain_figures, harmonic
from contseg.interop.segmenter_file import load_segmenter
from contseg.recipes.build import make_job
from contseg.sweeps.cells import Cell, Row, cells_of
from contseg.sweeps.origin import ORIGIN
from contseg.sweeps.page import NOTES, Page, kept_notes, spread, write

FIGURES = ("old", "new", "all", "hIoU", "average", "forgetting")
TITLES = ("method", *FIGURES, "% of joint", "worst order", "s per step", "trained", "MB")
GOALS = {"overlapped": 95.0, "partitioned": 85.0}
"""Per cent of the upper bound with the same features."""


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Args:
        figures: in percent, by names of `FIGURES`; None if not measured.
        seconds: mean over later steps, with their evaluation; of the whole run if it has one step.
        trained: parameters that the last step updates by gradients.
        megabytes: of the state of the method, which the next step needs besides the model.
    """

    figures: Mapping[str, float | None]
    seconds: float
    trained: int
    megabytes: float


Outcomes = Mapping[str, Sequence[Outcome]]
"""Finished runs by row, in the order of their seeds."""


def write_frontier(table: Page, path: Path, overrides: list[str], out: Path) -> None:
    """Write the page of the finished runs."""
    cells = [cell for cell in cells_of(table.rows, overrides, out) if cell.finished]
    outcomes = {name: [outcome_of(cell) for cell in cells if cell.row == name] for name in table.rows}
    write(path, frontier(table, outcomes, _setup(table, cells, read_clock(out / "clock.json")), kept_notes(path)))
    console.print(f"page: {path}", soft_wrap=True, markup=False)


def outcome_of(cell: Cell) -> Outcome:
    """The metrics and costs of a finished run."""
    run, summary = cell.run, cell.run.summary() or {}
    steps = [line["seconds"] for line in run.metrics() if line["kind"] == "step"]
    state = run.load_state(len(steps) - 1)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in state.method.values()) if state else 0
    return Outcome(
        figures=by_domain(run, summary) if run.domain_confusions()[0] else by_class(summary),
        seconds=statistics.fmean(steps[1:] or steps),
        trained=trained_parameters(cell, len(steps) - 1),
        megabytes=stored / 1e6,
    )


def by_class(summary: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics of a run whose steps add classes."""
    return {name: summary["harmonic" if name == "hIoU" else name] for name in FIGURES}


def by_domain(run: Run, summary: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics of a run whose steps add domains: old are the domains of step 0, new all others.

    A run of one step has the groups of two domains and the others, as the runs that it is compared with.
    """
    _, confusions = run.domain_confusions()
    figures = domain_figures(confusions, run.has_background)
    values = 100 * figures["domains"]
    last, forgetting = values[-1], figures["domain_forgetting"]
    old = ~np.isnan(values[0]) if len(values) > 1 else np.arange(len(last)) < 2
    means = {"old": float(np.nanmean(last[old])), "new": float(np.nanmean(last[~old]))}
    return {
        **means,
        "all": summary["all"],
        "hIoU": harmonic(means["old"], means["new"]),
        "average": summary["average"],
        "forgetting": None if forgetting is None else 100 * forgetting,
    }


def trained_parameters(cell: Cell, last: int) -> int:
    """Parameters that the last step of a run updates by gradients."""
    job = make_job(cell.recipe, cell.folder, new=False)
    step = list(job.scenario)[last]
    if job.training.epochs_of(last) == 0 or (last and not job.method.updates_later_steps):
        return 0
    segmenter, _ = load_segmenter(cell.run.segmenter_path(last))
    job.method.prepare(segmenter, step)
    return sum(parameter.numel() for parameter in segmenter.parameters() if parameter.requires_grad)


def _setup(table: Page, cells: Sequence[Cell], seconds: float | None) -> str:
    places = [cell.folder / ORIGIN for cell in cells if (cell.folder / ORIGIN).is_file()]
    lines = {line for place in places for line in place.read_text(encoding="utf-8").splitlines()}
    origins = [json.loads(line) for line in sorted(lines)]
    machines = "; ".join(dict.fromkeys(f"{origin['cpu']}, {origin['cores']} cores" for origin in origins)) or "-"
    clock = "-" if seconds is None else f"{seconds / 60:.0f} min of wall-clock time"
    total = sum(len(row.seeds) for row in table.rows.values())
    facts = {
        "command": f"`{table.command}`",
        "runs": f"{len(cells)} of {total} finished",
        "machine": machines,
        "time": clock,
    }
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {text} |\n" for name, text in facts.items())


def frontier(table: Page, outcomes: Outcomes, setup: str = "", notes: str = "\n") -> str:
    """The page as Markdown."""
    parts = [
        f"# {table.title}\n",
        "This page is generated; only the notes are written by hand.\n",
        setup,
        f"{table.caption}\n",
    ]
    found = [textwrap.fill(line, 118, subsequent_indent="  ", break_on_hyphens=False) for line in goals(table, outcomes)]
    parts += ["## Goals\n", "\n".join(found) + "\n"]
    for title, rows in table.sections.items():
        parts += [f"## {title}\n", section(rows, outcomes)]
    parts += ["## Notes\n", f"{NOTES[0]}{notes}{NOTES[1]}\n"]
    return "\n".join(parts)


def section(rows: Mapping[str, Row], outcomes: Outcomes) -> str:
    """The table of a protocol, the best harmonic mean first, then the upper bounds."""
    bounds = [name for name in rows if _short(name).startswith("joint")]
    ranked = sorted((name for name in rows if name not in bounds), key=lambda name: -mean_of(outcomes, name, "hIoU", -1.0))
    reference = mean_of(outcomes, bounds[-1], "all")
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES)]
    lines += [f"| {' | '.join(_line(rows[name], outcomes.get(name, ()), reference))} |" for name in (*ranked, *bounds)]
    left = [f"{row.label} {len(row.seeds) - len(outcomes.get(name, ()))}" for name, row in rows.items()]
    left = [text for text in left if not text.endswith(" 0")]
    missing = textwrap.fill(f"Not finished (runs): {', '.join(left)}.", 118, break_on_hyphens=False)
    return "\n".join(lines) + "\n" + (f"\n{missing}\n" if left else "")


def _line(row: Row, found: Sequence[Outcome], reference: float) -> list[str]:
    def values(name: str) -> list[float]:
        return [value for outcome in found if (value := outcome.figures[name]) is not None]

    if not found:
        return [row.label, *["-"] * (len(TITLES) - 1)]
    share = f"{100 * statistics.fmean(values('all')) / reference:.0f}" if reference > 0 else "-"
    worst = f"{min(values('hIoU')):.1f}" if values("hIoU") else "-"
    costs = [f"{statistics.fmean(one.seconds for one in found):.1f}", _count(found[-1].trained)]
    stored = f"{max(one.megabytes for one in found):.1f}"
    return [row.label, *(spread(values(name)) for name in FIGURES), share, worst, *costs, stored]


def goals(
    table: Page, outcomes: Outcomes, default: str = "pyramid", closed_form: Sequence[str] = ("gaussian",)
) -> list[str]:
    """A line per protocol and goal of the default method: met or missed, and by how much."""
    lines = []
    for title, rows in table.sections.items():
        prefix = next(iter(rows)).partition("/")[0]
        own, joint = f"{prefix}/{default}", f"{prefix}/joint-features"
        if any(len(outcomes.get(name, ())) < len(row.seeds) for name, row in rows.items()):
            lines.append(f"* {title}: not finished.")  # a goal among some of the methods would say little
            continue
        others = [name for name in rows if name != own and not _short(name).startswith("joint")]
        best = max(others, key=lambda name: mean_of(outcomes, name, "hIoU"))
        mine, theirs = mean_of(outcomes, own, "hIoU"), mean_of(outcomes, best, "hIoU")
        lines.append(f"* {title}, best hIoU: {_met(mine >= theirs)}, {mine:.1f} against {theirs:.1f} of {rows[best].label}.")
        gradient = [name for name in others if _short(name) not in closed_form]
        cheapest = min(gradient, key=lambda name: _seconds(outcomes, name))
        time, least = _seconds(outcomes, own), _seconds(outcomes, cheapest)
        lines.append(
            f"* {title}, less time than the cheapest gradient method: {_met(time < least)}, {time:.1f} s per step"
            f" against {least:.1f} s of {rows[cheapest].label}."
        )
        if prefix in GOALS:
            share = 100 * mean_of(outcomes, own, "all") / mean_of(outcomes, joint, "all")
            met = _met(share >= GOALS[prefix])
            lines.append(f"* {title}, {GOALS[prefix]:.0f} % of joint with the same head: {met}, {share:.0f} %.")
    return lines


def mean_of(outcomes: Outcomes, name: str, figure: str, missing: float = 0.0) -> float:
    """The mean of a metric over the finished runs of a row; `missing` if there are none."""
    values = [value for one in outcomes.get(name, ()) if (value := one.figures[figure]) is not None]
    return statistics.fmean(values) if values else missing


def _seconds(outcomes: Outcomes, name: str) -> float:
    return statistics.fmean(one.seconds for one in outcomes[name])


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def _count(number: int) -> str:
    """A number of parameters.

    Example:
        >>> _count(0), _count(65), _count(12_345), _count(3_400_000)
        ('0', '65', '12.3 k', '3.4 M')
    """
    return f"{number}" if number < 1000 else f"{number / 1000:.1f} k" if number < 1e6 else f"{number / 1e6:.1f} M"

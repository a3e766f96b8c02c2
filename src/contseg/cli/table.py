"""`contseg table`."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from contseg.cli.console import console, percent, remark_lines
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.metrics import run_figures
from contseg.evaluation.remarks import run_remarks
from contseg.recipes.comparison import comparability, compare_run, notes_on, recorded_recipe
from contseg.recipes.published import COUNTED, FIGURES
from contseg.report.page import run_names

COLUMNS = ("run", "background", *FIGURES, "source")
CAPTION = "mIoU in %; old: classes of step 0, new: of all later steps; in brackets: run minus published; *: not comparable"


@dataclass(frozen=True)
class Line:
    """A run, or a published number beside it.

    Attributes:
        kind: `run`, `unfinished`, or how sure the published number is.
        background: `counted` in old and all, `not counted`, or `unknown`.
        figures: `old`, `new`, `all` in percent.
        delta: run - published, likewise.
        comparable: see `Comparison`.
        source: of the published number.
        notes: what is to be said of it.
    """

    kind: str
    background: str
    figures: Mapping[str, float | None]
    delta: Mapping[str, float | None] = field(default_factory=dict)
    comparable: bool = True
    source: str = ""
    notes: tuple[str, ...] = ()

    def cell(self, key: str) -> str:
        """A figure, and how far the run is from it."""
        delta = self.delta.get(key)
        return percent(self.figures[key]) + ("" if delta is None else f" ({delta:+.1f})")


@dataclass(frozen=True)
class Block:
    """The lines of a run under its name, and the notes on all of them."""

    run: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def rows(self) -> Iterator[list[str]]:
        """The lines as in a table for people, in the order of `COLUMNS`."""
        for line in self.lines:
            name = line.kind + ("" if line.comparable else " *") if line.source else self.run
            yield [name, line.background, *map(line.cell, FIGURES), line.source]


def print_table(runs: Sequence[Path], out: Path | None = None) -> None:
    """Print runs beside published numbers, those of one protocol together.

    Args:
        runs: folders of runs, of which at least one step is finished.
        out: also write the table there, as Markdown (.md) or CSV (.csv).

    Raises:
        ContsegError: a folder holds no run or no finished step, or `out` has another ending.
    """
    writers = {".md": markdown, ".csv": comma_separated}
    if out is not None and out.suffix not in writers:
        raise ContsegError(f"--out: {out} ends in '{out.suffix}'; a table is written as {' or '.join(writers)}")
    found = [Run(folder).require() for folder in runs]
    groups: dict[str, list[Block]] = {}
    for run, name in zip(found, run_names(found), strict=True):
        if not run.confusions():
            raise ContsegError(f"{run.folder}: no step is finished yet, so there is nothing to compare")
        groups.setdefault(protocol_of(run), []).append(block_of(run, name))
    for protocol, blocks in groups.items():
        print_group(protocol, blocks)
    console.print(CAPTION, soft_wrap=True, highlight=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(writers[out.suffix](groups), encoding="utf-8")
        console.print(f"table: {out}", soft_wrap=True, markup=False)


def protocol_of(run: Run) -> str:
    """What a run learns when, in a few words; runs with the same words stand together."""
    recipe = recorded_recipe(run)
    if recipe is None:
        plan = run.require_plan()
        return f"{plan['dataset']} {plan['split']} {plan['setting']}"
    scenario = recipe.scenario
    split = scenario.scored_as or scenario.split
    how = "by domain" if scenario.by == "domain" else "lists" if scenario.lists else scenario.setting
    words = [recipe.data.dataset, split] + ([how] if split != "offline" else [])
    words += [f"order {scenario.order}"] if scenario.order != "natural" else []
    words += [f"domains {', '.join(scenario.domains)}"] if scenario.domains else []
    words += [f"ratio {scenario.ratio}"] if scenario.ratio < 1 else []
    words += [f"memory {scenario.memory.size}"] if scenario.memory else []
    return " ".join(words)


def block_of(run: Run, name: str) -> Block:
    """A run, with and without background where both are needed, and the published numbers beside it."""
    recipe, summary = recorded_recipe(run), run.summary()
    reasons = comparability(recipe) if recipe else []
    marks = [f"not comparable with published numbers: {'; '.join(reasons)}"] if reasons else []
    if summary is None:
        confusions = run.confusions()
        measured = confusions, run.groups(), run.has_background()
        figures = run_figures(*measured)
        shown = {key: None if figures[key] is None else 100 * figures[key] for key in FIGURES}
        last, steps = len(confusions) - 1, len(run.require_plan()["steps"])
        told = f"is not finished: these are the figures after step {last} of 0 to {steps - 1}; not compared"
        notes = (told, *marks, *remark_lines(run_remarks(*measured, *run.tested()), FIGURES))
        return Block(name, (Line("unfinished", COUNTED["no"], shown, notes=notes),), notes)
    remarks = remark_lines(summary.get("notes", {}), FIGURES)
    comparisons = compare_run(run)
    lines = [Line("run", COUNTED["no"], {key: summary[key] for key in FIGURES}, notes=(*marks, *remarks))]
    with_background = [one.run for one in comparisons if one.row.background == "yes"]
    lines += [Line("run", COUNTED["yes"], figures) for figures in with_background[:1]]
    for one in comparisons:
        row, published = one.row, {key: getattr(one.row, key) for key in FIGURES}
        lines.append(Line(row.sure, COUNTED[row.background], published, one.delta, one.comparable, row.source, one.warnings))
    return Block(name, tuple(lines), (*(notes_on(comparisons) or marks), *remarks))


def print_group(protocol: str, blocks: Sequence[Block]) -> None:
    """A table of one protocol, and beneath it what is to be said of its runs."""
    table = Table(title=Text(protocol), title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in FIGURES else "left", overflow="fold")
    for block in blocks:
        for cells in block.rows():
            table.add_row(*map(Text, cells))
        table.add_section()
    console.print(table)
    for block in blocks:
        for note in block.notes:
            console.print(f"{block.run}: {note}", soft_wrap=True, markup=False, highlight=False)


def markdown(groups: Mapping[str, Sequence[Block]]) -> str:
    """The table as Markdown: a heading, a table and notes for each protocol.

    Example:
        >>> line = Line("quoted", "counted", {"old": 1.0, "new": 2.0, "all": None}, {"old": 0.5}, source="a paper")
        >>> print(markdown({"voc 15-1": [Block("mine", (line,))]}))
        ## voc 15-1
        <BLANKLINE>
        | run | background | old | new | all | source |
        |---|---|---|---|---|---|
        | quoted | counted | 1.0 (+0.5) | 2.0 | - | a paper |
        <BLANKLINE>
        mIoU in %; ...
    """
    parts = []
    for protocol, blocks in groups.items():
        rows = [_markdown_row(COLUMNS), "|---" * len(COLUMNS) + "|"]
        rows += [_markdown_row(cells) for block in blocks for cells in block.rows()]
        table = "\n".join(rows)
        notes = "".join(f"* {block.run}: {note}\n" for block in blocks for note in block.notes)
        parts.append(f"## {protocol}\n\n{table}\n" + (f"\n{notes}" if notes else ""))
    return "\n".join([*parts, f"{CAPTION}\n"])


def comma_separated(groups: Mapping[str, Sequence[Block]]) -> str:
    """The table as CSV: a line each, figures and distances in columns of their own and not rounded.

    Example:
        >>> line = Line("run", "counted", {"old": 1.25, "new": 2.0, "all": None})
        >>> print(comma_separated({"voc 15-1": [Block("mine", (line,))]}))
        protocol,run,kind,background,old,new,all,delta_old,delta_new,delta_all,comparable,source,notes
        voc 15-1,mine,run,counted,1.25,2.0,,,,,,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    deltas = [f"delta_{key}" for key in FIGURES]
    writer.writerow(["protocol", "run", "kind", "background", *FIGURES, *deltas, "comparable", "source", "notes"])
    for protocol, blocks in groups.items():
        for block in blocks:
            for line in block.lines:
                figures = [values.get(key) for values in (line.figures, line.delta) for key in FIGURES]
                comparable = ("yes" if line.comparable else "no") if line.source else ""
                start = [protocol, block.run, line.kind, line.background]
                writer.writerow([*start, *figures, comparable, line.source, "; ".join(line.notes)])
    return text.getvalue()


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

"""The table of runs next to published numbers, also as Markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from contseg.recipes.published import FIGURES

QUALITY = ("PQ old", "PQ new", "PQ all", "SQ", "RQ")
"""Columns of panoptic quality, where a row has one."""
CAPTION = (
    "mIoU and PQ in %; old: classes of step 0, new: of all later steps; in brackets: run minus published; *: not comparable"
)


@dataclass(frozen=True)
class Line:
    """A table row: a run, or a published number next to it.

    Attributes:
        kind: `run`, `unfinished`, or how certain the published number is.
        background: `counted` in old and all, `not counted`, or `unknown`.
        figures: `old`, `new`, `all` in percent.
        delta: run - published, in percentage points, by column.
        comparable: see `Comparison`.
        source: where the number was published.
        notes: remarks on the number.
        quality: `QUALITY` in percent; {} where it was not measured.
    """

    kind: str
    background: str
    figures: Mapping[str, float | None]
    delta: Mapping[str, float | None] = field(default_factory=dict)
    comparable: bool = True
    source: str = ""
    notes: tuple[str, ...] = ()
    quality: Mapping[str, float | None] = field(default_factory=dict)

    def cell(self, key: str) -> str:
        """A number with the run's difference from it."""
        delta = self.delta.get(key)
        return percent(self.value(key)) + ("" if delta is None else f" ({delta:+.1f})")

    def value(self, key: str) -> float | None:
        """The number of a column."""
        return (self.quality if key in QUALITY else self.figures).get(key)


@dataclass(frozen=True)
class Block:
    """The table rows of a run under its name, and the notes on all of them."""

    run: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def rows(self, numbers: Sequence[str]) -> Iterator[list[str]]:
        """The text of each cell, in the order of `columns`.

        Args:
            numbers: of `numbers`, for all blocks of a table.
        """
        for line in self.lines:
            name = line.kind + ("" if line.comparable else " *") if line.source else self.run
            yield [name, line.background, *map(line.cell, numbers), line.source]


def numbers(blocks: Iterable[Block]) -> tuple[str, ...]:
    """The columns of a table that are numbers: those of panoptic quality only where a row has some.

    Example:
        >>> nothing = dict.fromkeys(FIGURES)
        >>> [numbers([Block("a", (Line("run", "counted", nothing, quality=found),))]) for found in ({}, {"PQ all": 3.0})]
        [('old', 'new', 'all'), ('old', 'new', 'all', 'PQ old', 'PQ new', 'PQ all', 'SQ', 'RQ')]
    """
    return (*FIGURES, *QUALITY) if any(line.quality for block in blocks for line in block.lines) else FIGURES


def columns(numbers: Sequence[str]) -> tuple[str, ...]:
    """The titles of all columns."""
    return ("run", "background", *numbers, "source")


def percent(value: float | None) -> str:
    """A number in percent as text; a dash for None.

    Example:
        >>> percent(61.24), percent(None)
        ('61.2', '-')
    """
    return "-" if value is None else f"{value:.1f}"


def remark_lines(notes: Mapping[str, str], shown: Iterable[str]) -> list[str]:
    """Remarks on the shown metrics, one line each.

    Example:
        >>> remark_lines({"old": "over 2 of 3 classes", "harmonic": "not measured"}, ["old", "new"])
        ['old: over 2 of 3 classes']
    """
    return [f"{key}: {notes[key]}" for key in shown if key in notes]


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
        mIoU and PQ in %; ...
    """
    parts = []
    for protocol, blocks in groups.items():
        shown = numbers(blocks)
        titles = columns(shown)
        rows = [_markdown_row(titles), "|---" * len(titles) + "|"]
        rows += [_markdown_row(cells) for block in blocks for cells in block.rows(shown)]
        table = "\n".join(rows)
        notes = "".join(f"* {block.run}: {note}\n" for block in blocks for note in block.notes)
        parts.append(f"## {protocol}\n\n{table}\n" + (f"\n{notes}" if notes else ""))
    return "\n".join([*parts, f"{CAPTION}\n"])


def comma_separated(groups: Mapping[str, Sequence[Block]]) -> str:
    """The table as CSV: a line per row, numbers and differences in separate columns, not rounded.

    Example:
        >>> line = Line("run", "counted", {"old": 1.25, "new": 2.0, "all": None})
        >>> print(comma_separated({"voc 15-1": [Block("mine", (line,))]}))
        protocol,run,kind,background,old,new,all,delta_old,delta_new,delta_all,comparable,source,notes
        voc 15-1,mine,run,counted,1.25,2.0,,,,,,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shown = numbers(block for blocks in groups.values() for block in blocks)
    names = [key.lower().replace(" ", "_") for key in shown]
    deltas = [f"delta_{name}" for name in names]
    writer.writerow(["protocol", "run", "kind", "background", *names, *deltas, "comparable", "source", "notes"])
    for protocol, blocks in groups.items():
        for block in blocks:
            for line in block.lines:
                figures = [*map(line.value, shown), *map(line.delta.get, shown)]
                comparable = ("yes" if line.comparable else "no") if line.source else ""
                start = [protocol, block.run, line.kind, line.background]
                writer.writerow([*start, *figures, comparable, line.source, "; ".join(line.notes)])
    return text.getvalue()


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

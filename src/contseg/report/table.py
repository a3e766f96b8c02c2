"""The table of runs next to published numbers, also as Markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from contseg.recipes.published import FIGURES

COLUMNS = ("run", "background", *FIGURES, "source")
CAPTION = "mIoU in %; old: classes of step 0, new: of all later steps; in brackets: run minus published; *: not comparable"


@dataclass(frozen=True)
class Line:
    """A table row: a run, or a published number next to it.

    Attributes:
        kind: `run`, `unfinished`, or how certain the published number is.
        background: `counted` in old and all, `not counted`, or `unknown`.
        figures: `old`, `new`, `all` in percent.
        delta: run - published, in percentage points.
        comparable: see `Comparison`.
        source: where the number was published.
        notes: remarks on the number.
    """

    kind: str
    background: str
    figures: Mapping[str, float | None]
    delta: Mapping[str, float | None] = field(default_factory=dict)
    comparable: bool = True
    source: str = ""
    notes: tuple[str, ...] = ()

    def cell(self, key: str) -> str:
        """A number with the run's difference from it."""
        delta = self.delta.get(key)
        return percent(self.figures[key]) + ("" if delta is None else f" ({delta:+.1f})")


@dataclass(frozen=True)
class Block:
    """The table rows of a run under its name, and the notes on all of them."""

    run: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def rows(self) -> Iterator[list[str]]:
        """The text of each cell, in the order of `COLUMNS`."""
        for line in self.lines:
            name = line.kind + ("" if line.comparable else " *") if line.source else self.run
            yield [name, line.background, *map(line.cell, FIGURES), line.source]


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
    """The table as CSV: a line per row, numbers and differences in separate columns, not rounded.

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

"""`contseg table SWEEP`."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from contseg.cli.console import console
from contseg.cli.table import print_group
from contseg.errors import ContsegError
from contseg.replaceable import require_replaceable, write_output
from contseg.report.sheet import Sheet, latex, markdown
from contseg.sweeps.outcomes import read_outcomes
from contseg.sweeps.page import read_results, result_warnings
from contseg.sweeps.published import published_blocks, published_sheets
from contseg.sweeps.results import HEADER, comma_separated, sheets

MARKS = {".md": "## Means\n\n| method |", ".csv": ",".join(HEADER), ".tex": "% Means\n\\begin{tabular}"}
"""A text in every table, by suffix of its file."""
LABEL = 20
"""Characters that the names of methods have at least."""


def print_sweep_table(path: Path, out: Path | None = None) -> None:
    """Print means, costs and differences of the methods of a sweep, next to published numbers.

    Args:
        path: folder of the sweep, or its `sweep.yaml`.
        out: also write the tables there, as Markdown (.md), CSV (.csv) or LaTeX (.tex).

    Raises:
        ContsegError: see `read_outcomes`, or `out` has another suffix or is a file that is not such a table.
    """
    if out is not None and out.suffix not in MARKS:
        raise ContsegError(f"--out: {out}: unknown suffix '{out.suffix}'; use {', '.join(MARKS)}")
    if out is not None:
        require_replaceable(out, MARKS[out.suffix])
    with console.status("reading runs"):
        outcomes = read_outcomes(path)
        warnings = result_warnings(read_results(outcomes.finished))
    found, groups = sheets(outcomes), published_blocks(outcomes)
    for sheet in found:
        print_sheet(sheet)
    for protocol, blocks in groups.items():
        print_group(f"Published numbers: {protocol}", blocks)
    for title, problem in outcomes.damaged.items():
        console.print(f"warning: {title} is left out: {problem}", highlight=False, markup=False, soft_wrap=True)
    for warning in warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        if out.suffix == ".csv":
            text = comma_separated(outcomes)
        else:
            text = (markdown if out.suffix == ".md" else latex)([*found, *published_sheets(groups)])
        write_output(out, text, MARKS[out.suffix])
        console.print(f"table: {out}", soft_wrap=True, markup=False)


def titles(sheet: Sheet) -> list[str]:
    """The titles of the columns; those of numbers have a word per line where they would leave too little for the others.

    Example:
        >>> many = Sheet("", ["method", *["PQ old"] * 30], [])
        >>> titles(many)[1], titles(Sheet("", ["method", "PQ old"], []))[1]
        ('PQ\\nold', 'PQ old')
    """
    numbers = sheet.columns[sheet.left :]
    narrow = sum(len(title) + 2 for title in numbers) > console.width - LABEL
    return [*sheet.columns[: sheet.left], *(title.replace(" ", "\n") if narrow else title for title in numbers)]


def print_sheet(sheet: Sheet) -> None:
    """Print a table and its notes."""
    table = Table(title=Text(sheet.title), title_justify="left", pad_edge=False, box=None, header_style="bold")
    for place, column in enumerate(titles(sheet)):
        text = place < sheet.left
        table.add_column(Text(column), justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for note in sheet.notes:
        console.print(f"  {note}", soft_wrap=False, markup=False, highlight=False, style="dim")
    console.print()

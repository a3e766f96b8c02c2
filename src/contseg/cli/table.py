"""`contseg table`."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from contseg.cli.console import console
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.replaceable import require_replaceable, write_output
from contseg.report.comparison import block_of, protocol_of, run_names
from contseg.report.table import CAPTION, Block, columns, comma_separated, markdown, numbers

MARKS = {".md": "| run | background | ", ".csv": "protocol,run,kind,background,"}
"""A text in every table, by suffix of its file."""


def print_table(runs: Sequence[Path], out: Path | None = None) -> None:
    """Print runs next to published numbers, one table per protocol.

    Args:
        runs: folders of runs with at least one finished step.
        out: also write the table there, as Markdown (.md) or CSV (.csv).

    Raises:
        ContsegError: a folder contains no run or no finished step, or `out` has another suffix or is a
            file that is not such a table.
    """
    writers = {".md": markdown, ".csv": comma_separated}
    if out is not None and out.suffix not in writers:
        raise ContsegError(f"--out: {out}: unknown suffix '{out.suffix}'; use {' or '.join(writers)}")
    if out is not None:
        require_replaceable(out, MARKS[out.suffix])
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
        write_output(out, writers[out.suffix](groups), MARKS[out.suffix])
        console.print(f"table: {out}", soft_wrap=True, markup=False)


def print_group(protocol: str, blocks: Sequence[Block]) -> None:
    """Print the table of one protocol, and the notes on its runs below it."""
    table = Table(title=Text(protocol), title_justify="left")
    shown = numbers(blocks)
    for column in columns(shown):
        table.add_column(column, justify="right" if column in shown else "left", overflow="fold")
    for block in blocks:
        for cells in block.rows(shown):
            table.add_row(*map(Text, cells))
        table.add_section()
    console.print(table)
    for block in blocks:
        for note in block.notes:
            console.print(f"{block.run}: {note}", soft_wrap=True, markup=False, highlight=False)

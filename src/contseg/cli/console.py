"""The terminal: one console, and how figures look on it."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class _Console(Console):
    """Goes silent where nobody reads any more (`contseg train ... | head`); what it reports on goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with suppress(OSError, ValueError):  # a stream without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = _Console()

COLUMNS = {
    "old": "old",
    "new": "new",
    "all": "all",
    "average": "average",
    "forgetting": "forgetting",
}


def percent(value: float | None) -> str:
    """A figure for a table; absent ones are a dash."""
    return "-" if value is None else f"{value:.1f}"


def summary_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Method x figures, mIoU in percent without background."""
    table = Table(caption="mIoU in %, background not counted; old: classes of step 0, new: of all later steps")
    table.add_column("method")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    table.add_column("seconds", justify="right")
    for name, summary in summaries.items():
        table.add_row(name, *(percent(summary[key]) for key in COLUMNS), f"{summary['seconds']:.0f}")
    return table


@contextmanager
def scan_progress(title: str = "reading masks") -> Iterator[Any]:
    """A progress bar for the presence scan; yields a callback of (done, total)."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, visible=False)

        def callback(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield callback

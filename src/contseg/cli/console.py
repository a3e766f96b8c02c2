"""The console, and the summary table."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from contseg.errors import visible
from contseg.report.table import percent, remark_lines


class PlainConsole(Console):
    """A console that shows text as it is: names of classes, files and runs may be `[/x]`, `:smile:` or contain escape codes.

    Example:
        >>> plain = PlainConsole()
        >>> with plain.capture() as capture:
        ...     plain.print("[/x] :smile: a\\x1b[31mred")
        >>> print(capture.get(), end="")
        [/x] :smile: a\\x1b[31mred
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """Stop printing when the reader of a pipe has ended (`contseg train ... | head`); the work continues."""
        self.quiet = True
        with suppress(OSError, ValueError):  # a stream without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def render_str(self, text: str, **options: Any) -> Text:
        """A text whose width is that of the characters shown."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments to print; only rich itself moves the cursor."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


class PlainColumn(TextColumn):
    """A part of a progress bar that shows text as it is.

    Args:
        text: with fields of the task, such as `{task.description}`.
    """

    def render(self, task: Task) -> Text:
        """The text for a task."""
        return Text(visible(self.text_format.format(task=task)))


console = PlainConsole()

COLUMNS = {
    "old": "old",
    "new": "new",
    "all": "all",
    "average": "average",
    "forgetting": "forgetting",
}


def summary_table(summaries: Mapping[str, Mapping[str, Any]]) -> Group:
    """Method x figures, mIoU in percent without background; below it, why a number is a dash or over fewer classes."""
    table = Table(caption="mIoU in %, background not counted; old: classes of step 0, new: of all later steps")
    table.add_column("method")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    table.add_column("seconds", justify="right")
    for name, summary in summaries.items():
        table.add_row(name, *(percent(summary[key]) for key in COLUMNS), f"{summary['seconds']:.0f}")
    methods: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for line in remark_lines(summary.get("notes", {}), COLUMNS):
            methods.setdefault(line, []).append(name)
    several = len(summaries) > 1
    return Group(table, *(Text(f"{line} ({', '.join(names)})" if several else line) for line, names in methods.items()))


@contextmanager
def scan_progress(title: str = "reading masks") -> Iterator[Any]:
    """A progress bar for the presence scan; yields a callback of (done, total)."""
    columns = [PlainColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, visible=False)

        def callback(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield callback

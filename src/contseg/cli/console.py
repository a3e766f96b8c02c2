"""The console, progress bars, and the summary table."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
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
    """A console without markup: names of classes, files and runs may be `[/x]`, `:smile:` or contain escape codes.

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
        """The text with escapes made visible, so that its width is right."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments to print; only those of rich may move the cursor."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


class PlainColumn(TextColumn):
    """A column of a progress bar without markup.

    Args:
        text_format: text with fields of the task, such as `{task.description}`.
    """

    def render(self, task: Task) -> Text:
        """The text of a task."""
        return Text(visible(self.text_format.format(task=task)))


console = PlainConsole()

COLUMNS = ("old", "new", "all", "average", "forgetting")

PANOPTIC = {
    "PQ old": ("pq", "old"), "PQ new": ("pq", "new"), "PQ all": ("pq", "all"), "SQ": ("sq", "all"), "RQ": ("rq", "all"),
}  # fmt: skip
"""Columns of panoptic quality: the figure and the group of classes. They are shown where a run measured it."""


def summary_table(summaries: Mapping[str, Mapping[str, Any]]) -> Group:
    """A row of metrics per method, mIoU in percent without background, and below it why a number is missing or partial."""
    panoptic = any("pq" in summary for summary in summaries.values())
    what = "mIoU and PQ (panoptic quality)" if panoptic else "mIoU"
    table = Table(caption=f"{what} in %, background not counted; old: classes of step 0, new: of all later steps")
    table.add_column("method")
    for title in COLUMNS:
        table.add_column(title, justify="right")
    for title in PANOPTIC if panoptic else ():
        table.add_column(title, justify="right")
    table.add_column("seconds", justify="right")
    for name, summary in summaries.items():
        more = [summary.get(quality, {}).get(group) for quality, group in PANOPTIC.values()] if panoptic else []
        shown = [*(summary[key] for key in COLUMNS), *more]
        table.add_row(name, *map(percent, shown), f"{summary['seconds']:.0f}")
    methods: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for line in remark_lines(summary.get("notes", {}), COLUMNS):
            methods.setdefault(line, []).append(name)
    several = len(summaries) > 1
    return Group(table, *(Text(f"{line} ({', '.join(names)})" if several else line) for line, names in methods.items()))


def progress_bars() -> Progress:
    """Progress bars, the same for every command; none in a log. A task needs the field `detail`, a text next to its bar."""
    return Progress(
        PlainColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        PlainColumn("{task.fields[detail]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not (console.is_interactive or console.is_jupyter),  # otherwise an empty line is printed at the end
    )


@contextmanager
def progress_bar(title: str = "reading masks") -> Iterator[Callable[[int, int], None]]:
    """A single progress bar; yields a function of (done, total) that shows it and updates it."""
    with progress_bars() as bars:
        task = bars.add_task(title, total=None, visible=False, detail="")
        yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)

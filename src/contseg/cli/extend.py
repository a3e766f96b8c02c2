"""`contseg extend`, `contseg forget` and `contseg merge`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from contseg.cli.console import console, progress_bars
from contseg.cli.progress import duration
from contseg.data.datasets.labelled import Unlabelled
from contseg.extension.extend import extend
from contseg.extension.folder import PAGE, Progress
from contseg.extension.forget import forget
from contseg.extension.merge import merge
from contseg.report.table import percent


def run_extension(
    model: Path,
    data: Path,
    out: Path,
    classes: Sequence[str] | None,
    method: str,
    keep: Path | None,
    unlabelled: Unlabelled,
    minutes: float,
    seed: int,
    options: Mapping[str, Any],
) -> None:
    """Extend a model, and print what it learned, kept and lost; see `extend`."""
    with shown_progress() as progress:
        done = extend(
            model,
            data,
            out,
            classes=classes,
            method=method,
            keep=keep,
            unlabelled=unlabelled,
            minutes=minutes,
            seed=seed,
            options=options,
            progress=progress,
        )
    record = done.record
    if len(record["candidates"]) > 1:
        console.print(candidate_table(record["candidates"]))
        for one in record["candidates"]:
            line(f"{one['name']}: {one['note']}")
    table = Table(title=Text(f"{', '.join(record['new'])} added to {model} by {record['method']}"), title_justify="left")
    for title in ("class", "result", "IoU before", "IoU after", "agreement"):
        table.add_column(title, justify="left" if title in ("class", "result") else "right", overflow="fold")
    for row in done.classes:
        table.add_row(*map(Text, row.cells()))
    console.print(table)
    line("IoU in %, by labels of held-out images; a dash: no label. Agreement, and results with ~, are estimates:")
    line("the IoU with the predictions of the old model.")
    changed = record["disagreement"]
    if changed["all"] is not None:
        text = f"estimate: the class of {100 * changed['all']:.1f} % of the pixels outside of new labels changed"
        if changed["confident"] is not None:
            text += f", and of {100 * changed['confident']:.1f} % of those where the old model was confident"
        line(text)
    for text in record["notes"]:
        line(f"note: {text}")
    for text in record["warnings"]:
        line(f"warning: {text}")
    memory = "" if record["memory_mb"] is None else f", {record['memory_mb']:.0f} MB of memory"
    line(f"{duration(record['seconds'])}{memory}, {record['stored_mb']:.1f} MB stored")
    line(f"model: {done.folder}\npage: {done.folder / PAGE}\nnext:")
    for command in record["commands"]:
        line(f"  {command}")


def candidate_table(candidates: Sequence[dict[str, Any]]) -> Table:
    """A row for each method that was tried; the chosen one is marked."""
    table = Table(title="candidates", title_justify="left")
    for title in ("", "method", "new IoU", "agreement", "mean", "seconds"):
        table.add_column(title, justify="left" if title in ("", "method") else "right", overflow="fold")
    for one in candidates:
        figures = (percent(None if one[key] is None else 100 * one[key]) for key in ("learned", "agreed", "score"))
        mark = ">" if one["chosen"] else ""
        table.add_row(mark, Text(one["name"]), *figures, f"{one['seconds']:.1f}")
    return table


def run_forgetting(model: Path, names: Sequence[str], out: Path) -> None:
    """Take classes back, and print which are left; see `forget`."""
    done = forget(model, names, out)
    line(f"classes left: {', '.join(done.table.names)}")
    for text in done.notes:
        line(f"note: {text}")
    line(f"model: {done.folder}")


def run_merge(one: Path, other: Path, out: Path) -> None:
    """Merge two extensions of a model, and print the classes; see `merge`."""
    done = merge(one, other, out)
    line(f"classes: {', '.join(done.table.names)}")
    for text in done.notes:
        line(f"note: {text}")
    line(f"model: {done.folder}")


def line(text: str) -> None:
    """Print text as it is, without wrapping."""
    console.print(text, soft_wrap=True, highlight=False)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A bar for each kind of work, as it is reported; a line in a log."""
    with progress_bars() as bars:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for before in tasks.values():
                    bars.update(before, visible=False)
                tasks[what] = bars.add_task(what, total=total, detail="")
                if bars.disable:  # a log has lines in place of bars
                    line(what)
            bars.update(tasks[what], completed=done, total=total)

        yield update

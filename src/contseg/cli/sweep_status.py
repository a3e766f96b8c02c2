"""`contseg sweep --status`: a live table on a terminal, plain lines in a log."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from contseg.cli.console import console
from contseg.cli.progress import duration, numbered
from contseg.cli.sweep_progress import is_led
from contseg.errors import counted, visible
from contseg.sweeps.status import State, Status, statuses
from contseg.sweeps.sweep import Sweep

EVERY = 2.0
"""Seconds between two updates of the table."""


def show_status(folder: Path) -> None:
    """Show what the runs of a sweep do: once in a log; on a terminal until nothing is trained any more.

    Raises:
        ContsegError: the folder contains no `sweep.yaml`, or a recipe of it cannot be read.
    """
    sweep = Sweep.read(folder)
    folder = folder.parent if folder.is_file() else folder  # of sweep.yaml
    cells = sweep.cells(folder)
    found = statuses(cells)
    if not console.is_terminal:
        for status in found:
            console.print(line_of(status), highlight=False, soft_wrap=True)
        console.print(counts_of(found), highlight=False)
        return
    with Live(table_of(found, console.height), console=console, auto_refresh=False) as live:
        while goes_on(found, folder):
            time.sleep(EVERY)
            found = statuses(cells)
            live.update(table_of(found, console.height), refresh=True)


def goes_on(found: Sequence[Status], folder: Path) -> bool:
    """Whether a run is trained, or a leader will start one: between two runs, none is running."""
    states = {status.state for status in found}
    return "running" in states or (states != {"done"} and is_led(folder))


def counts_of(found: Sequence[Status]) -> str:
    """The number of runs in each state.

    Example:
        >>> counts_of([])
        '0 runs: 0 done, 0 running, 0 waiting, 0 failed'
    """
    counts = Counter[str](status.state for status in found)
    return f"{counted(len(found), 'run')}: {', '.join(f'{counts[state]} {state}' for state in get_args(State))}"


def line_of(status: Status) -> str:
    """The state of a run in one line."""
    parts = [*place_of(status), status.note.splitlines()[0] if status.note else ""]
    return f"{status.cell.title}: {status.state}" + "".join(f"  {part}" for part in parts if part)


def place_of(status: Status) -> list[str]:
    """Step, epoch, loss and time left; "" for what is unknown."""
    if status.step < 0 or status.state == "done":
        return ["", "", "", ""]
    return [
        numbered("step", status.step, status.steps),
        f"{status.epoch}/{status.epochs} epochs",
        "" if status.loss is None else f"loss {status.loss:.3f}",
        "" if status.left is None else f"{duration(status.left)} left",
    ]


def table_of(found: Sequence[Status], height: int) -> Group:
    """The table; if it is higher than the terminal, without the runs that are done or wait."""
    table = Table()
    for title in ("run", "state", "step", "epoch", "loss", "left", ""):
        table.add_column(title, overflow="fold")
    shown = found if len(found) + 6 <= height else [one for one in found if one.state in ("running", "failed")]
    for status in shown:
        place = [part.removeprefix("step ").removeprefix("loss ").removesuffix(" epochs") for part in place_of(status)]
        place[-1] = place[-1].removesuffix(" left")
        table.add_row(status.cell.title, status.state, *place, visible(status.note.partition("\n")[0]))
    return Group(table, Text(counts_of(found)))

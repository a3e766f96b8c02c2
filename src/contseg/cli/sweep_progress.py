"""Progress bars of a sweep, and the time it takes."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import TaskID

from contseg.cli.console import console, progress_bars
from contseg.cli.progress import duration, numbered
from contseg.engine.cache import StepCache
from contseg.report.table import percent
from contseg.sweeps.page import write
from contseg.sweeps.runs import Task, Watcher

CLOCK, CLOCK_MARK = "clock.json", '{"seconds": '
"""The file of the wall-clock time, and its beginning."""
EVERY = 5.0
"""Seconds between two writes of the time."""


class SweepProgress(Watcher):
    """Shows a bar for the sweep and one per run, in training images, and keeps the wall-clock time in `clock.json`.

    Args:
        tasks: the runs to train.
        finished: number of runs that were finished before.
        total: number of all runs.
        out: folder of the sweep.
    """

    def __init__(self, tasks: Sequence[Task], finished: int, total: int, out: Path):
        self.tasks, self.finished, self.total, self.clock = tasks, finished, total, out / CLOCK
        cache = out / "cache"
        bearers: dict[str, Task] = {}
        for task in tasks:
            if task.key and not StepCache(cache, task.key).filled:
                bearers.setdefault(task.key, task)
        self.shares = {task: bearers.get(task.key) is not task for task in tasks}
        self.bars = progress_bars()
        self.lines: dict[Task, TaskID] = {}

    def started(self) -> None:
        self.done = {task: task.done(self.shares[task]) for task in self.tasks}
        work = sum(task.work(self.shares[task]) for task in self.tasks)
        self.since, self.spent = time.monotonic(), read_clock(self.clock)
        self._write_clock()
        self.whole = self.bars.add_task("", total=max(work, 1), detail="")
        self.bars.start()

    def progressed(self, running: Sequence[Task]) -> None:
        for task in self.lines.keys() - set(running):  # cut off, and not started again yet
            self.bars.remove_task(self.lines.pop(task))
        for task in running:
            self.done[task] = task.done(self.shares[task])
            if task not in self.lines:
                self.lines[task] = self.bars.add_task(task.cell.title, total=task.work(False), detail="")
            self.bars.update(self.lines[task], completed=task.done(False), detail=_place(task))
        elapsed = time.monotonic() - self.since
        self.bars.update(
            self.whole,
            completed=sum(self.done.values()),
            description=f"{self.finished} of {self.total} runs",
            detail=f"{duration(elapsed)} elapsed",
        )
        if time.monotonic() - self.written > EVERY:
            self._write_clock()

    def ended(self, task: Task, problem: str | None) -> None:
        self._write_clock()
        if task in self.lines:
            self.bars.remove_task(self.lines.pop(task))
        self.done[task] = task.done(self.shares[task])
        summary = None if problem else task.cell.run.summary()
        if not summary:
            outcome = problem or "stopped"
        else:
            self.finished += 1
            outcome = "  ".join(f"{key} {percent(summary[key])}" for key in ("old", "new", "all"))
            outcome += f"  ({self.finished} of {self.total})"
        console.print(f"{task.cell.title}: {outcome}", highlight=False, markup=False, soft_wrap=True)

    def _write_clock(self) -> None:
        self.written = time.monotonic()
        write(self.clock, json.dumps({"seconds": round(self.spent + self.written - self.since, 1)}))

    def stop(self) -> None:
        """Remove the bars."""
        self.bars.stop()


def _place(task: Task) -> str:
    """The current step and epoch of a run."""
    epochs = task.cell.epoch_lines
    if not epochs:
        return numbered("step", 0, len(task.images))
    step, epoch = epochs[-1]["step"], epochs[-1]["epoch"]
    count = task.cell.recipe.training.epochs_of(step)
    return f"{numbered('step', step, len(task.images))}, {numbered('epoch', epoch, count)}"


def is_led(out: Path) -> bool:
    """Whether a leader works on a sweep: it wrote the clock in the last three intervals."""
    try:
        return time.time() - (out / CLOCK).stat().st_mtime < 3 * EVERY
    except OSError:
        return False


def read_clock(path: Path) -> float:
    """Seconds spent on the sweep, over all its starts; 0 without a file, or if it is damaged."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0

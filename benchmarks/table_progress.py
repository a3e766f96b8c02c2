"""How a table of runs goes, on the terminal, and the time that its command has taken."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from benchmarks.table_page import write
from benchmarks.table_runs import Task, Watcher
from contseg.cli.console import console, percent
from contseg.engine.cache import StepCache


class Progressing(Watcher):
    """Draws how many runs are done, what each process does, and the time; keeps the time by the clock in a file.

    Args:
        tasks: to be trained.
        finished, total: runs done before, and all.
        out: folder of the table.
    """

    def __init__(self, tasks: Sequence[Task], finished: int, total: int, out: Path):
        self.tasks, self.finished, self.total, self.clock = tasks, finished, total, out / "clock.json"
        cache = out / "cache"
        bearers: dict[str, Task] = {}
        for task in tasks:
            if not StepCache(cache, task.key).filled:
                bearers.setdefault(task.key, task)
        self.shares = {task: bearers.get(task.key) is not task for task in tasks}
        columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[detail]}")
        self.bars = Progress(*columns, console=console, transient=True)
        self.lines: dict[Task, TaskID] = {}

    def started(self) -> None:
        self.done = {task: task.done(self.shares[task]) for task in self.tasks}
        self.work = sum(task.work(self.shares[task]) for task in self.tasks)
        self.before, self.since, self.spent = sum(self.done.values()), time.monotonic(), read_clock(self.clock)
        self.whole = self.bars.add_task("", total=max(self.work, 1), detail="")
        self.bars.start()

    def look(self, running: Sequence[Task], waiting: Sequence[Task]) -> None:
        for task in running:
            self.done[task] = task.done(self.shares[task])
            if task not in self.lines:
                self.lines[task] = self.bars.add_task(task.cell.title, total=task.work(False), detail="")
            self.bars.update(self.lines[task], completed=task.done(False), detail=_place(task))
        elapsed, done = time.monotonic() - self.since, sum(self.done.values())
        left = _minutes(elapsed * (self.work - done) / (done - self.before)) if done > self.before else "-"
        self.bars.update(
            self.whole,
            completed=done,
            description=f"{self.finished} of {self.total} runs",
            detail=f"{_minutes(elapsed)} elapsed, {left} left",
        )
        write(self.clock, json.dumps({"seconds": round(self.spent + elapsed, 1)}))

    def ended(self, task: Task, problem: str | None) -> None:
        if task in self.lines:
            self.bars.remove_task(self.lines.pop(task))
        self.done[task] = task.done(self.shares[task])
        summary = task.cell.run.summary()
        if problem or not summary:
            said = problem or "stopped"
        else:
            self.finished += 1
            said = "  ".join(f"{key} {percent(summary[key])}" for key in ("old", "new", "all"))
            said += f"  ({self.finished} of {self.total})"
        console.print(f"{task.cell.title}: {said}", highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.bars.stop()


def _place(task: Task) -> str:
    """Step and epoch that a run is in."""
    epochs = [line for line in task.cell.run.metrics() if line["kind"] == "epoch"]
    if not epochs:
        return f"step 1/{len(task.images)}"
    step, count = epochs[-1]["step"], epochs[-1]["epoch"] + 1
    return f"step {step + 1}/{len(task.images)}, epoch {count}/{task.cell.recipe.training.epochs_of(step)}"


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def read_clock(path: Path) -> float:
    """Seconds that the command ran, over all its starts."""
    return json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.is_file() else 0.0

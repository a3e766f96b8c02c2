"""Training on the terminal: a live bar with step, epoch, loss, images per second and time left."""

import time
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from contseg.cli.console import PlainColumn, console, percent, remark_lines
from contseg.engine.job import Reporter


class TerminalReporter(Reporter):
    """Draws a bar per step, and a line when a step is done.

    Args:
        title: stands in front of every line (the method's name).
    """

    def __init__(self, title: str = ""):
        self.title = f"{title} " if title else ""
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._images, self._since = 0, 0.0
        self._remarks: set[str] = set()

    def start(self) -> None:
        self._progress = Progress(
            PlainColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            PlainColumn("{task.fields[detail]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._progress.start()

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        shown = ", ".join(classes) if len(classes) <= 4 else f"{len(classes)} classes"
        self._label = f"{self.title}step {step + 1}/{steps} ({shown})"
        self._images, self._since = 0, time.perf_counter()
        self._new_task(updates)
        if note:
            self._print(f"{self._label}: {note}")

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        self._images += images
        rate = self._images / max(time.perf_counter() - self._since, 1e-9)
        if self._progress is not None and self._task is not None:
            detail = f"epoch {epoch + 1}/{epochs}  loss {loss:.3f}  {rate:.0f} images/s"
            self._progress.update(self._task, advance=1, detail=detail)

    def evaluating(self, batches: int) -> None:
        self._new_task(batches, "testing")

    def evaluated(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1)

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        # what no class belongs to yet is left out, as `new` after step 0
        keys = [key for key in ("old", "new", "all") if figures[key] is not None or figures["measured"][key][1]]
        shown = {key: None if figures[key] is None else 100 * figures[key] for key in keys}
        self._print(f"{self._label}: " + "  ".join(f"{key} {percent(value)}" for key, value in shown.items()))
        for line in remark_lines(figures["notes"], keys):
            if line not in self._remarks:  # later steps would only say it again
                self._remarks.add(line)
                self._print(f"{self._label}: {line}")

    def message(self, text: str) -> None:
        self._print(f"{self.title}{text}")

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _new_task(self, total: int, detail: str = "") -> None:
        if self._progress is None:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(self._label, total=max(total, 1), detail=detail)

    def _print(self, text: str) -> None:
        # a line stays a line in a log, and a class may be called [a]
        console.print(text, highlight=False, markup=False, soft_wrap=True)

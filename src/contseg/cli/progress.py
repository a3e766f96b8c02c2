"""Progress of a training: on a terminal a live bar with epoch, loss, speed and time left, in a log a line per epoch.

Steps and epochs are counted from 0, as in metrics.jsonl, in folders and in the report: the last of six steps is `step 5/5`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.progress import Progress, TaskID

from contseg.cli.console import console, progress_bars
from contseg.cli.streams import write_anything
from contseg.engine.job import Reporter
from contseg.report.table import percent, remark_lines

QUIET = 30
"""Seconds between two lines of progress in a log."""


def numbered(what: str, index: int, count: int) -> str:
    """The number of a step or an epoch and that of the last one, 0-based; without the last if there is only one.

    Example:
        >>> numbered("step", 0, 6), numbered("step", 5, 6), numbered("epoch", 0, 1)
        ('step 0/5', 'step 5/5', 'epoch 0')
    """
    return f"{what} {index}" if count == 1 else f"{what} {index}/{count - 1}"


def duration(seconds: float) -> str:
    """A time span in its two largest units.

    Example:
        >>> duration(7.4), duration(200), duration(7260)
        ('7 s', '3 min 20 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@contextmanager
def progress_of(
    title: str, total: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, str, float], None]]:
    """Progress with the time left over images: a bar on a terminal, otherwise a line every `QUIET` seconds.

    Yields a function of the number of finished images, and the name and the finished part of the current one.

    Args:
        clock: seconds.
    """
    started = printed = clock()
    with progress_bars() as bars:
        task = bars.add_task(title, total=total, detail="")

        def show(finished: int, name: str, part: float) -> None:
            nonlocal printed
            done, detail, now = finished + part, f"{name} {part:.0%}", clock()
            bars.update(task, completed=done, detail=detail)
            if bars.disable and done and now - printed >= QUIET:
                printed = now
                left = duration((now - started) / done * (total - done))
                text = f"{title}: {finished} of {total} images, {detail}, {left} left"
                console.print(text, highlight=False, soft_wrap=True)

        yield show


class TerminalReporter(Reporter):
    """Shows a bar per step and prints a line when a step is finished; without a terminal, also a line per epoch.

    Args:
        title: printed before every line (the name of the method).
    """

    def __init__(self, title: str = ""):
        self.title = f"{title} " if title else ""
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._images, self._since = 0, 0.0
        self._remarks: set[str] = set()
        self._updates, self._done = 0, 0

    def start(self) -> None:
        write_anything()
        self._progress = progress_bars()
        self._progress.start()

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        shown = ", ".join(classes) if len(classes) <= 4 else f"{len(classes)} classes"
        self._label = f"{self.title}{numbered('step', step, steps)} ({shown})"
        self._images, self._since = 0, time.perf_counter()
        self._updates, self._done = updates, 0
        self._new_task(updates)
        if note:
            self._print(f"{self._label}: {note}")

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        self._images += images
        self._done += 1
        rate = self._images / max(time.perf_counter() - self._since, 1e-9)
        if self._progress is not None and self._task is not None:
            detail = f"{numbered('epoch', epoch, epochs)}  loss {loss:.3f}  {rate:.0f} images/s"
            self._progress.update(self._task, advance=1, detail=detail)

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        if console.is_terminal:
            return
        # measured in updates, as the first epoch is shorter after a resume
        left = (time.perf_counter() - self._since) / max(self._done, 1) * (self._updates - self._done)
        what = f"loss {loss:.3f}  {images_per_second:.1f} images/s  {duration(left)} left in this step"
        self._print(f"{self._label}: {numbered('epoch', epoch, epochs)}  {what}")

    def evaluating(self, batches: int) -> None:
        self._new_task(batches, "testing")

    def evaluated(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1)

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        keys = ("old", "new", "all")
        shown = {key: None if figures[key] is None else 100 * figures[key] for key in keys}
        self._print(f"{self._label}: " + "  ".join(f"{key} {percent(value)}" for key, value in shown.items()))
        for line in remark_lines(figures["notes"], keys):
            if line not in self._remarks:  # later steps would only repeat it
                self._remarks.add(line)
                self._print(f"  {line}")

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
        # one line in a log, without markup, as a class may be named [a]
        with suppress(OSError, UnicodeError):  # a full disk under a log must not end the training
            console.print(text, highlight=False, markup=False, soft_wrap=True)

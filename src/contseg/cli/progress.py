"""Progress of a training: on a terminal a live bar with epoch, loss, speed and time left, in a log a line per epoch.

Steps and epochs are counted from 0, as in metrics.jsonl, in folders and in the report: the last of six steps is `step 5/5`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.progress import Progress, TaskID

from contseg.cli.console import console, progress_bars
from contseg.cli.streams import write_anything
from contseg.report.log import TextLog, duration, numbered

QUIET = 30
"""Seconds between two lines of progress in a log."""


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


def print_line(text: str) -> None:
    """Print one line of a log. A full disk or a closed pipe must not end the training."""
    with suppress(OSError, UnicodeError):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


class TerminalReporter(TextLog):
    """The lines of a log; on a terminal, a bar per step in place of the lines within a step.

    Args:
        title: printed before every line (the name of the method).
        clock: seconds.
    """

    def __init__(self, title: str = "", clock: Callable[[], float] = time.monotonic):
        super().__init__(print_line, title, clock)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self, updates: Sequence[int]) -> None:
        write_anything()
        super().start(updates)
        self._progress = progress_bars()
        self._progress.start()

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        super().step_started(step, steps, classes, updates, note)
        self._new_task(updates)

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        super().updated(epoch, epochs, loss, images)
        speed = f"{self.pace.images_per_second:.0f} images/s"
        self._advance(f"{numbered('epoch', epoch, epochs)}  loss {loss:.3f}  {speed}")

    def within(self, epoch: int, epochs: int, loss: float) -> None:
        if not console.is_terminal:
            super().within(epoch, epochs, loss)

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        if not console.is_terminal:
            super().epoch_finished(epoch, epochs, loss, images_per_second)

    def evaluating(self, batches: int) -> None:
        super().evaluating(batches)
        self._new_task(batches, "testing")

    def evaluated(self) -> None:
        super().evaluated()
        self._advance("testing")

    def testing(self, done: int, batches: int) -> None:
        if not console.is_terminal:
            super().testing(done, batches)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _new_task(self, total: int, detail: str = "") -> None:
        if self._progress is None:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(self.label, total=max(total, 1), detail=detail)

    def _advance(self, detail: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, detail=detail)

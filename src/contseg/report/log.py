"""Lines about a training for a log: text for readers, JSON objects for programs."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from contseg.engine.job import Reporter
from contseg.report.table import percent, remark_lines

PERIOD = 120.0
"""Seconds between two lines within an epoch or a test."""


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


class Pace:
    """The speed of a step and the time left, estimated from the updates that this process has made in the step.

    The time left is that of training. Tests, and the start of later steps, are not included.

    Args:
        updates: left in the step.
        later: updates of all later steps.
        clock: seconds.

    Example:
        >>> seconds = iter([100.0, 102.0])
        >>> pace = Pace(updates=5, later=10, clock=lambda: next(seconds))
        >>> pace.add(images=8)
        >>> pace.images_per_second, pace.left_in_step, pace.left_in_run
        (4.0, 8.0, 28.0)
    """

    def __init__(self, updates: int = 0, later: int = 0, clock: Callable[[], float] = time.monotonic):
        self.updates, self.later, self._clock = updates, later, clock
        self.done, self._images = 0, 0
        self._since = self._now = clock()

    def add(self, images: int) -> None:
        """Count an update with this number of images."""
        self.done += 1
        self._images += images
        self._now = self._clock()

    @property
    def images_per_second(self) -> float:
        """Over the step."""
        return self._images / max(self._now - self._since, 1e-9)

    @property
    def left_in_step(self) -> float:
        """Seconds of training left in this step."""
        return (self._now - self._since) / max(self.done, 1) * (self.updates - self.done)

    @property
    def left_in_run(self) -> float:
        """Seconds of training left in all steps, with the speed of this one."""
        return self.left_in_step + (self._now - self._since) / max(self.done, 1) * self.later


class PacedReporter(Reporter):
    """Keeps the pace of a training, and calls `within` or `testing` if no line was written for `PERIOD` seconds.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.pace = Pace(clock=clock)
        self.step, self.steps = 0, 1
        self._updates: Sequence[int] = ()
        self._batches, self._tested = 0, 0
        self._wrote = clock()

    def start(self, updates: Sequence[int]) -> None:
        self._updates, self.steps = updates, len(updates)

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        self.step, self.steps, self._wrote = step, steps, self.clock()
        self.pace = Pace(updates, sum(self._updates[step + 1 :]), self.clock)

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        self.pace.add(images)
        if self._is_due():
            self.within(epoch, epochs, loss)

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        self._wrote = self.clock()

    def evaluating(self, batches: int) -> None:
        self._batches, self._tested, self._wrote = batches, 0, self.clock()

    def evaluated(self) -> None:
        self._tested += 1
        if self._is_due():
            self.testing(self._tested, self._batches)

    def within(self, epoch: int, epochs: int, loss: float) -> None:
        """Report the progress within an epoch; `loss` is that of the last forward pass."""

    def testing(self, done: int, batches: int) -> None:
        """Report the progress of a test."""

    def _is_due(self) -> bool:
        now = self.clock()
        due = now - self._wrote >= PERIOD
        if due:
            self._wrote = now
        return due


class TextLog(PacedReporter):
    """A line per epoch and per step; in long epochs and tests one every `PERIOD` seconds.

    Args:
        write: receives each line, without its end.
        title: printed before every line (the name of the method).
        clock: seconds.
    """

    def __init__(self, write: Callable[[str], None], title: str = "", clock: Callable[[], float] = time.monotonic):
        super().__init__(clock)
        self.write, self.title = write, f"{title} " if title else ""
        self.label = ""
        self._remarks: set[str] = set()

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        super().step_started(step, steps, classes, updates, note)
        shown = ", ".join(classes) if len(classes) <= 4 else f"{len(classes)} classes"
        self.label = f"{self.title}{numbered('step', step, steps)} ({shown})"
        if note:
            self.write(f"{self.label}: {note}")

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        super().epoch_finished(epoch, epochs, loss, images_per_second)
        self.write(f"{self.label}: {numbered('epoch', epoch, epochs)}  {self._speed(loss, images_per_second)}")

    def within(self, epoch: int, epochs: int, loss: float) -> None:
        done = f"{self.pace.done} of {self.pace.updates} updates"
        speed = self._speed(loss, self.pace.images_per_second)
        self.write(f"{self.label}: {numbered('epoch', epoch, epochs)}  {done}  {speed}")

    def testing(self, done: int, batches: int) -> None:
        self.write(f"{self.label}: testing  {done} of {batches} batches")

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        keys = ("old", "new", "all")
        shown = {key: None if figures[key] is None else 100 * figures[key] for key in keys}
        self.write(f"{self.label}: " + "  ".join(f"{key} {percent(value)}" for key, value in shown.items()))
        if "panoptic" in figures:
            for title in ("PQ", "SQ", "RQ"):
                means = figures["panoptic"][title.lower()]
                text = (f"{key} {percent(None if means[key] is None else 100 * means[key])}" for key in keys)
                self.write(f"{self.label}: {title} {'  '.join(text)}")
        for line in remark_lines(figures["notes"], keys):
            if line not in self._remarks:  # later steps would only repeat it
                self._remarks.add(line)
                self.write(f"  {line}")

    def message(self, text: str) -> None:
        self.write(f"{self.title}{text}")

    def _speed(self, loss: float, images_per_second: float) -> str:
        left = f"{duration(self.pace.left_in_step)} left in this step"
        if self.steps > 1:
            left += f", {duration(self.pace.left_in_run)} in the run"
        return f"loss {loss:.3f}  {images_per_second:.1f} images/s  {left}"


class JsonLog(PacedReporter):
    """A JSON object per line, with `kind` and `seconds` since the start; docs/logs.md lists the kinds and their keys.

    Args:
        write: receives each line, without its end.
        clock: seconds.

    Example:
        >>> JsonLog(print, clock=lambda: 5.0).message("step 0 is not cached")
        {"kind": "message", "seconds": 0.0, "text": "step 0 is not cached"}
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        super().__init__(clock)
        self._write, self._since = write, clock()

    def add(self, kind: str, **content: Any) -> None:
        """Write an object."""
        self._write(json.dumps({"kind": kind, "seconds": round(self.clock() - self._since, 3)} | content))

    def start(self, updates: Sequence[int]) -> None:
        super().start(updates)
        self.add("run_started", updates=list(updates))

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        super().step_started(step, steps, classes, updates, note)
        self.add("step_started", step=step, steps=steps, classes=list(classes), updates=updates, note=note)

    def within(self, epoch: int, epochs: int, loss: float) -> None:
        self._add_speed("update", epoch, epochs, loss, self.pace.images_per_second)

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        super().epoch_finished(epoch, epochs, loss, images_per_second)
        self._add_speed("epoch", epoch, epochs, loss, images_per_second)

    def testing(self, done: int, batches: int) -> None:
        self.add("testing", step=self.step, done=done, batches=batches)

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        metrics = {key: value for key, value in figures.items() if key not in ("kind", "step")}
        self.add("step", step=step, steps=self.steps, metrics=metrics)

    def message(self, text: str) -> None:
        self.add("message", text=text)

    def _add_speed(self, kind: str, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        self.add(
            kind,
            step=self.step,
            epoch=epoch,
            epochs=epochs,
            loss=loss,
            images_per_second=round(images_per_second, 1),
            seconds_left_in_step=round(self.pace.left_in_step, 1),
            seconds_left_in_run=round(self.pace.left_in_run, 1),
        )

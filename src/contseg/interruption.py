"""Signals that end a command (Ctrl-C, SIGTERM, SIGHUP): they wait while a batch is learned, and end all else at once."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CAUGHT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME = 1.0
"""Seconds within which further signals are the first one again: a terminal and a launcher may both send it."""
GRACE = 20.0
"""Seconds that a process without its parent has for saving."""
ENDS_WITH_INPUT = "CONTSEG_ENDS_WITH_INPUT"
"""Environment variable of a command that another one started: it ends with its standard input, i.e. with its parent."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work.

    Attributes:
        number: of the signal.
        resume: the command that continues the work, or "" where there is nothing to continue.

    Example:
        >>> Interrupted(2).exit_code, str(Interrupted(15, "contseg train --resume runs/a"))
        (130, 'Interrupted. Resume with: contseg train --resume runs/a')
    """

    def __init__(self, number: int, resume: str = ""):
        super().__init__(number)
        self.number, self.resume = number, resume

    @property
    def exit_code(self) -> int:
        """128 + number, as shells have it."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"Interrupted. Resume with: {self.resume}" if self.resume else "Interrupted."


@dataclass
class _State:
    """Of this process; its children by fork have a copy, which the process number gives away."""

    process: int = 0
    depth: int = 0
    pending: int | None = None
    since: float = 0.0
    notify: Callable[[int], None] | None = None


_state = _State()


@contextmanager
def catching() -> Iterator[None]:
    """Turn signals into `Interrupted`. A handler of the caller's own and an ignored signal (`nohup`) stay as they are.

    Nothing changes outside the main thread, where Python allows no handlers, and where signals are caught already.
    """
    if _state.process == os.getpid() or threading.current_thread() is not threading.main_thread():
        yield
        return
    default = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: handler for number in CAUGHT if (handler := signal.getsignal(number)) in default}
    _state.__init__(os.getpid())  # type: ignore[misc]
    for number in before:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.process = 0


def _handle(number: int, frame: object) -> None:
    if _state.process != os.getpid():  # a reader of images, forked from this process, which ends it
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    now, first = time.monotonic(), _state.pending is None
    if not first and now - _state.since < SAME:
        return
    _state.pending = _state.pending or number
    _state.since = now
    if first and _state.depth:
        if _state.notify:
            _state.notify(number)
        return
    raise Interrupted(_state.pending)


@contextmanager
def deferred(notify: Callable[[int], None] | None = None) -> Iterator[None]:
    """Let signals wait until the block ends, and raise `Interrupted` then. A second one, later, is not waited for.

    Args:
        notify: called with the number of the first signal, at once.
    """
    before = _state.notify
    _state.depth, _state.notify = _state.depth + 1, notify or before
    try:
        yield
    finally:
        _state.depth, _state.notify = _state.depth - 1, before
    if not _state.depth:
        _raise_pending()


@contextmanager
def at_once() -> Iterator[None]:
    """Inside `deferred`: signals do not wait in this block."""
    depth, _state.depth = _state.depth, 0
    try:
        _raise_pending()
        yield
    finally:
        _state.depth = depth


def requested() -> int | None:
    """The number of the signal that waits, or None."""
    return _state.pending if _state.process == os.getpid() else None


def _raise_pending() -> None:
    number = requested()
    if number is not None:
        raise Interrupted(number)


def end_with(gone: Callable[[], int | None]) -> None:
    """Interrupt this process when another one is gone; wherever it is blocked, it ends `GRACE` seconds later.

    Args:
        gone: waits; returns the number of the signal to act on, or None where the other process ended.
    """

    def watch() -> None:
        number = gone()
        _thread.interrupt_main(signal.Signals(number or signal.SIGTERM))
        if number is None:
            time.sleep(GRACE)
            os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def end_with_input() -> None:
    """Interrupt this process when its standard input ends, if the process that started it set `ENDS_WITH_INPUT`."""
    if os.environ.pop(ENDS_WITH_INPUT, ""):
        end_with(_input_ended)


def _input_ended() -> None:
    """Wait until no process can write to standard input any more."""
    while os.read(sys.stdin.fileno(), 1):  # not through a buffer, whose lock the end of the interpreter would wait for
        pass

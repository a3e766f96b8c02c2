"""Signals that end a command (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1): deferred during an update, immediate elsewhere."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CAUGHT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
SAME = 1.0
"""Seconds in which a repeated signal is ignored, as a terminal and a launcher may both send it."""
GRACE = 20.0
"""Seconds that a process has to save after its parent has ended."""
ENDS_WITH_INPUT = "CONTSEG_ENDS_WITH_INPUT"
"""Environment variable that makes a command end when its standard input closes, that is, with its parent process."""


class Interrupted(KeyboardInterrupt):
    """Raised when a signal ends the work.

    Attributes:
        number: number of the signal.
        resume: the command that resumes the work, or "" if it cannot be resumed.

    Example:
        >>> Interrupted(2).exit_code, str(Interrupted(15, "contseg train --resume runs/a"))
        (130, 'Interrupted. Resume with: contseg train --resume runs/a')
    """

    def __init__(self, number: int, resume: str = ""):
        super().__init__(number)
        self.number, self.resume = number, resume

    @property
    def exit_code(self) -> int:
        """128 + number, as in shells."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"Interrupted. Resume with: {self.resume}" if self.resume else "Interrupted."


@dataclass
class _State:
    """The state of this process. A forked child has a copy with the process number of its parent."""

    process: int = 0
    depth: int = 0
    pending: int | None = None
    since: float = 0.0
    notify: Callable[[int], None] | None = None


_state = _State()


@contextmanager
def catching() -> Iterator[None]:
    """Turn signals into `Interrupted`. Custom handlers and ignored signals (`nohup`) are left unchanged.

    It has no effect outside the main thread, where Python allows no handlers, and inside another `catching`.
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
    if _state.process != os.getpid():  # a worker forked from this process
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
    """Defer signals to the end of the block, and raise `Interrupted` there. A second signal interrupts at once.

    Args:
        notify: called at once, with the number of the first signal.
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
    """Inside `deferred`: signals are not deferred in this block."""
    depth, _state.depth = _state.depth, 0
    try:
        _raise_pending()
        yield
    finally:
        _state.depth = depth


def requested() -> int | None:
    """The number of the deferred signal, or None."""
    return _state.pending if _state.process == os.getpid() else None


def _raise_pending() -> None:
    number = requested()
    if number is not None:
        raise Interrupted(number)


def end_with(gone: Callable[[], int | None]) -> None:
    """Interrupt this process when another one ends or sends a signal; if it blocks, it is killed `GRACE` seconds later.

    Args:
        gone: blocks; returns the number of a signal, or None if the other process ended.
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
    while os.read(sys.stdin.fileno(), 1):  # unbuffered: the interpreter waits for the lock of a buffer at exit
        pass

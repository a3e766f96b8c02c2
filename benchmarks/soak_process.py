"""Commands of `contseg` in forked processes, which can be killed at any moment. The import of PyTorch is shared."""

import gc
import multiprocessing.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from PIL import Image

WAIT = 300.0
"""Seconds after which a command hangs."""
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
"""Audit events of Python, in addition to `open` for writing, that change a folder."""


@dataclass(frozen=True)
class Kill:
    """A signal, sent after some seconds, when a file exists, or immediately before the n-th change of a file in a folder.

    Args:
        number: of the signal.
        seconds: after the start.
        when: the file, which is waited for as well.
        change: 1 for the first change; None to use `seconds`.
    """

    number: int
    seconds: float = 0.0
    when: Path | None = None
    change: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: exit code; negative if a signal ended it.
        output: standard output.
        errors: standard error.
        seconds: from its start.
        signalled: whether the signal was sent before it ended.
    """

    code: int
    output: str
    errors: str
    seconds: float
    signalled: bool = False

    @property
    def line(self) -> str:
        """The last line of its errors."""
        return (self.errors.strip().splitlines() or [""])[-1]


def preload() -> None:
    """Import what the commands import when they run."""
    import matplotlib.backends.backend_svg  # noqa: F401

    import contseg.cli.evaluate
    import contseg.cli.main
    import contseg.cli.predict
    import contseg.cli.train
    import contseg.data.extract
    import contseg.data.isprs.cut
    import contseg.engine.tensorboard
    import contseg.report.page  # noqa: F401

    Image.init()
    gc.freeze()  # a collection would copy the memory that processes share


def contseg(words: Sequence[object], place: Path, watched: Path | None = None, kill: Kill | None = None) -> Ended:
    """Run a command of `contseg` in a process of its own, and wait for it.

    Args:
        place: folder for its output and its cache, `log` and `cache`.
        watched: changes of files in this folder are counted for `Kill.change`.
        kill: a signal to send.
    """
    log = place / "log"
    log.mkdir(parents=True, exist_ok=True)
    os.environ["CONTSEG_CACHE"] = str(place / "cache")
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        _child([str(word) for word in words], log, watched, kill if kill and kill.change is not None else None)
    due = started + kill.seconds if kill and kill.change is None else None
    signalled, status = False, None
    while status is None:
        found, code = os.waitpid(process, os.WNOHANG)
        if found:
            status = os.waitstatus_to_exitcode(code)
        elif kill and due is not None and time.monotonic() >= due and (not kill.when or kill.when.exists()):
            os.kill(process, kill.number)
            signalled, due = True, None
        elif time.monotonic() > started + WAIT:
            os.killpg(process, signal.SIGKILL)
        else:
            time.sleep(0.002)
    written = (log / "out", log / "err")  # missing if the process was killed before it began
    output, errors = (path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in written)
    signalled |= bool(kill and kill.change is not None and status == -kill.number)
    return Ended(status, output, errors, time.monotonic() - started, signalled)


def _child(words: list[str], log: Path, watched: Path | None, kill: Kill | None) -> NoReturn:
    code = 1
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.argv = ["contseg", *words]
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            signal.signal(number, handler)
        if kill and watched:
            _kill_at_change(watched.resolve(), kill)
        from contseg.cli.main import main

        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill_at_change(folder: Path, kill: Kill) -> None:
    """Send a signal to this process before its n-th change of a file in a folder."""
    left = kill.change or 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and isinstance(arguments[0], str | Path):
            left -= str(arguments[0]).startswith(str(folder))
            if left == 0:
                left = -1
                os.kill(os.getpid(), kill.number)

    sys.addaudithook(hook)

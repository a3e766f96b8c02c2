"""Child processes of a command: they end with it, and save their work before."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from contseg.interruption import ENDS_WITH_INPUT
from contseg.lock import Lock

GRACE = 20.0
"""Seconds that a child has to save its work."""


def start(command: Sequence[str], log: Path, lock: Lock | None = None, **environment: str) -> subprocess.Popen:
    """Start a command of this package, with its output at the end of a log file.

    Standard input of the child is a pipe to this process, so the child ends with this process, even if that is killed.
    The child shares the lock, if there is one, until it ends.

    Args:
        environment: variables in addition to those of this process.
    """
    with log.open("a", encoding="utf-8") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=os.environ | {ENDS_WITH_INPUT: "1", "PYTHONIOENCODING": "utf-8"} | environment,
            pass_fds=lock.kept_by_children if lock else (),
            start_new_session=True,  # Ctrl-C reaches it through this process, once
        )


def end(processes: Sequence[subprocess.Popen]) -> None:
    """Terminate children, which save after their current update, and wait for them; after `GRACE`, they are killed.

    A second signal kills them at once. None outlives the call, and their last epoch is kept.
    """
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()


def last_line(log: Path) -> str:
    """The last line of a child's output without `error: `, or "no output"."""
    return last_lines(log, 1)[0].removeprefix("error: ")


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The last lines of a child's output; a line "no output" if there are none."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-count:] or ["no output"]

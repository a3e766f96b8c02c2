"""Real processes: waiting for them, and finding what they leave behind."""

import subprocess
import time
from pathlib import Path

import pytest

from contseg.engine.run import Run


def wait_for(reached, process: subprocess.Popen | None = None, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(mark: str) -> list[str]:
    """Processes that were started with a mark in their environment, zombies not counted."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"CONTSEG_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if command]


def assert_saved(run: Run) -> None:
    """A run that was stopped after its first epoch kept it, and the updates after it, if a signal fell between two."""
    state = run.load_state(0)
    assert state.epochs_done >= 1
    assert state.within is None or state.within["updates"] >= 1


linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")

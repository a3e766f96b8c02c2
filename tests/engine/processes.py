"""Real processes: waiting for them, and finding what they leave behind."""

import subprocess
import time
from pathlib import Path

import pytest


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


linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")

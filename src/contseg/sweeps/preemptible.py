"""What a job of SLURM does: it runs a command and saves before it is preempted. Imports little, as every job loads it."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contseg.children import end, start

BLOCKED = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
"""Starts the Python of a job. A signal of SLURM that arrives while it starts waits until `Work` can save."""


class Work:
    """Runs a command until it ends, and returns its exit code.

    Before SLURM ends the job, `checkpoint` interrupts the command, which saves after its current update.

    Args:
        command: saves and ends at SIGTERM, as a worker does.
        log: file for its output.
    """

    def __init__(self, command: Sequence[str], log: Path):
        self.command, self.log = command, log
        self._process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Run the command."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # sent to all processes of the job; blocked in the child
        threads = os.environ.get("OMP_NUM_THREADS") or os.environ.get("SLURM_CPUS_PER_TASK")
        self._process = start(self.command, self.log, None, **({"OMP_NUM_THREADS": threads} if threads else {}))
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})  # one that came before calls `checkpoint` now
            while (code := self._process.poll()) is None:  # not `wait`, which would block that of `checkpoint`
                time.sleep(0.2)
            return code
        finally:
            end([self._process])

    def checkpoint(self) -> Any:
        """Interrupt the command; returns what the requeued job does."""
        from submitit.helpers import DelayedSubmission

        if self._process:
            end([self._process])
        return DelayedSubmission(Work(self.command, self.log))

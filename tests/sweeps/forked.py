"""Leaders and workers that are forked from the test process, which has imported everything: they start in milliseconds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from contseg.interruption import ENDS_WITH_INPUT
from contseg.sweeps import worker
from contseg.sweeps.cells import Cell
from contseg.sweeps.runs import LOG, Job, Leader, tasks_of
from contseg.sweeps.sweep import Sweep


class Forked:
    """A process that was forked; `poll` as of a subprocess."""

    def __init__(self, process: int):
        self.process = process
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code

    def wait(self) -> int:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return self.code

    def kill(self, signal_number: int) -> None:
        if self.poll() is None:
            os.kill(self.process, signal_number)


class ForkingExecutor:
    """Workers that are forked from the leader, and end with it, as those of `LocalExecutor` do."""

    def __init__(self, places: int, cache: Path):
        self.places, self.cache = places, cache
        self.jobs: list[Forked] = []

    def room(self) -> int:
        return self.places - sum(job.code is None for job in self.jobs)

    def is_queued(self, cell: Cell) -> bool:
        return False

    def start(self, cells: Sequence[Cell]) -> list[Job]:
        started = [Forked(self._fork(cell.folder)) for cell in cells]
        self.jobs += started
        return list(started)

    def stop(self) -> None:
        for job in self.jobs:
            job.wait()

    def _fork(self, folder: Path) -> int:
        from_leader, to_worker = os.pipe()
        os.set_inheritable(to_worker, False)
        process = os.fork()
        if process:
            os.close(from_leader)
            return process
        # like a new process: standard input ends with the leader, output goes to the log
        os.closerange(3, from_leader)
        os.dup2(from_leader, 0)
        os.closerange(3, 256)
        log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ[ENDS_WITH_INPUT] = "1"
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        try:
            os._exit(worker.main(folder, self.cache, False))
        finally:
            os._exit(1)


def lead(folder: Path, places: int = 2) -> Forked:
    """A leader of the sweep in a folder, in a process of its own."""
    process = os.fork()
    if process:
        return Forked(process)
    try:
        torch.set_num_threads(1)
        cache = folder / "cache"
        cells = Sweep.read(folder).cells(folder)
        os._exit(len(Leader(tasks_of(cells), ForkingExecutor(places, cache), cache).lead()))
    finally:
        os._exit(99)

"""Runs of a sweep in processes of this machine: one per GPU, or several that share the cores."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from contseg.children import end, start
from contseg.engine.devices import accelerator_of, cores
from contseg.sweeps.cells import Cell
from contseg.sweeps.runs import LOG, Job
from contseg.sweeps.worker import worker_command

THREADS = "OMP_NUM_THREADS"
GPUS = "CUDA_VISIBLE_DEVICES"


class LocalExecutor:
    """Worker processes, which end with this one, saved.

    Args:
        cells: all runs.
        cache: folder in which runs share step 0.
        jobs: runs in parallel; None for one per GPU, or one per core without GPUs.
        accept_changes: see `train`.
    """

    def __init__(self, cells: Sequence[Cell], cache: Path, jobs: int | None = None, accept_changes: bool = False):
        options = [cell.recipe.training for cell in cells]
        gpus = visible_gpus() if any(accelerator_of(one) == "cuda" for one in options) else []
        self._places = places(gpus, jobs, max([one.devices for one in options], default=1))
        self._cache, self._accept = cache.resolve(), accept_changes
        self._processes: dict[subprocess.Popen, dict[str, str]] = {}

    def room(self) -> int:
        return len(self._places)

    def start(self, cells: Sequence[Cell]) -> list[Job]:
        return [self._started(cell) for cell in cells]

    def is_queued(self, cell: Cell) -> bool:
        return False

    def _started(self, cell: Cell) -> "LocalJob":
        place = self._places.pop(0)
        process = start(worker_command(cell.folder, self._cache, self._accept), cell.folder / LOG, None, **place)
        self._processes[process] = place
        return LocalJob(self, process)

    def ended(self, process: subprocess.Popen) -> None:
        """Close a process that ended, and free its place."""
        end([process])
        self._places.append(self._processes.pop(process))

    def stop(self) -> None:
        end(list(self._processes))


class LocalJob:
    """A worker process."""

    def __init__(self, executor: LocalExecutor, process: subprocess.Popen):
        self._executor, self._process = executor, process

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is not None:
            self._executor.ended(self._process)
        return code


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    if given := os.environ.get(GPUS):
        return [name.strip() for name in given.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def places(gpus: Sequence[str], jobs: int | None, devices: int = 1) -> list[dict[str, str]]:
    """The environment of each run in parallel: its GPUs, and its share of the cores as threads.

    More jobs than GPUs share them in turn. A number of threads in the environment is kept.

    Args:
        jobs: runs in parallel, or None.
        devices: processes of a run.

    Example:
        >>> [place["CUDA_VISIBLE_DEVICES"] for place in places(["0", "1", "2", "3"], None, devices=2)]
        ['0,1', '2,3']
        >>> len(places([], 3))
        3
    """
    groups = [",".join(gpus[at : at + devices]) for at in range(0, len(gpus) - devices + 1, devices)]
    count = jobs or len(groups) or max(1, cores() // devices)
    threads = {THREADS: os.environ.get(THREADS) or str(max(1, cores() // (count * devices)))}
    return [threads | ({GPUS: groups[number % len(groups)]} if groups else {}) for number in range(count)]

"""Runs of a sweep as jobs of SLURM, through submitit: arrays with one job per run, requeued when they are preempted."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contseg.atomic import write_text
from contseg.errors import ContsegError
from contseg.manifest import Manifest
from contseg.sweeps.cells import Cell
from contseg.sweeps.preemptible import BLOCKED, Work
from contseg.sweeps.runs import LOG, Job
from contseg.sweeps.worker import worker_command

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
MOST_JOBS = 1000
"""Jobs in the queue at a time, without --jobs."""
MOST_TIMEOUTS = 1000
"""Times that a job is requeued at its time limit; each attempt continues the run."""
QUEUE = 10.0
"""Seconds between two requests for the queue."""
JOB = "job.txt"
"""File in the folder of a run: the number of its job."""
LOST = ("NODE_FAIL", "PREEMPTED", "TIMEOUT", "BOOT_FAIL", "REQUEUED")
"""States of a job that ended without a result, and whose run continues in another one."""
LAST = 5
"""Lines of the output of a job that ended without a result."""


class SlurmExecutor:
    """Jobs of SLURM. They do not end with this process: repeat the command to wait for them.

    Args:
        cells: all runs.
        out: folder of the sweep; scripts and logs of the jobs are in `slurm`.
        cache: folder in which runs share step 0.
        options: of sbatch, see `options_of`.
        jobs: jobs in the queue at a time, or None.
        accept_changes: see `train`.

    Raises:
        ContsegError: SLURM or submitit is missing, or an option is wrong.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        out: Path,
        cache: Path,
        options: Mapping[str, Any],
        jobs: int | None = None,
        accept_changes: bool = False,
    ):
        self._executor = submitit_executor(out / "slurm", dict(options) | ranks_of(cells))
        self._cache, self._accept, self._most = cache.resolve(), accept_changes, jobs or MOST_JOBS
        self._jobs: list[SlurmJob] = []
        self._queued: set[str] = set()
        self._asked = -QUEUE

    def room(self) -> int:
        return self._most - sum(not job.ended for job in self._jobs)

    def start(self, cells: Sequence[Cell]) -> list[Job]:
        folders = [cell.folder.resolve() for cell in cells]
        works = [Work(worker_command(folder, self._cache, self._accept), folder / LOG) for folder in folders]
        try:
            jobs = self._executor.submit_array(works)
        except Exception as error:  # submitit passes on the error of sbatch
            reason = next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)
            raise ContsegError(f"--on slurm: sbatch refused the jobs ({reason}); correct --slurm") from None
        for cell, job in zip(cells, jobs, strict=True):
            write_text(cell.folder / JOB, f"{job.job_id}\n", shared=True)
            Manifest(cell.folder).record(cell.folder / JOB, grows=True)
        started = [SlurmJob(cell, job) for cell, job in zip(cells, jobs, strict=True)]
        self._jobs += started
        return list(started)

    def is_queued(self, cell: Cell) -> bool:
        path = cell.folder / JOB
        return path.is_file() and path.read_text(encoding="utf-8").strip() in self._queue()

    def stop(self) -> None:
        """Nothing: the jobs stay in the queue."""

    def _queue(self) -> set[str]:
        """The numbers of the jobs in the queue."""
        if time.monotonic() - self._asked > QUEUE:
            command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.returncode == 0:
                self._queued = set(found.stdout.split())
            self._asked = time.monotonic()
        return self._queued


class SlurmJob:
    """A submitted job."""

    def __init__(self, cell: Cell, job: Any):
        self._cell, self._job, self.ended = cell, job, False

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        self.ended = True
        (self._cell.folder / JOB).unlink(missing_ok=True)
        try:
            return max(self._job.results())
        except Exception as error:  # submitit raises many kinds for a job without a result
            if self._job.state in LOST:
                return 128 + signal.SIGTERM
            lines = (self._job.stderr() or str(error)).strip().splitlines()[-LAST:]
            with (self._cell.folder / LOG).open("a", encoding="utf-8") as log:
                log.write("\n".join([f"job {self._job.job_id}: {self._job.state}", *lines]) + "\n")
            return 1


def submitit_executor(folder: Path, parameters: Mapping[str, Any], kind: type | None = None) -> Any:
    """An executor of submitit.

    Args:
        kind: its class; None for that of SLURM, which needs the commands and passes other options on to sbatch.

    Raises:
        ContsegError: submitit or a command of SLURM is missing.
    """
    if kind is None and (missing := [name for name in COMMANDS if shutil.which(name) is None]):
        raise ContsegError(
            f"--on slurm: {', '.join(missing)}: not found on the PATH; use a machine that can submit jobs, or --on local"
        )
    if find_spec("submitit") is None:
        raise ContsegError("--on slurm: needs submitit; install it with: pip install 'contseg[cluster]'")
    from submitit import SlurmExecutor as Submitit

    python = f"{shlex.quote(sys.executable)} -c {shlex.quote(BLOCKED)}"
    executor = (kind or Submitit)(folder=folder, max_num_timeout=MOST_TIMEOUTS, python=python)
    if kind is None:  # sbatch has more options than submitit knows
        known = {key: value for key, value in parameters.items() if key in Submitit._valid_parameters()}
        parameters = known | {"additional_parameters": {key: parameters[key] for key in parameters.keys() - known.keys()}}
    executor.update_parameters(**parameters)
    return executor


def ranks_of(cells: Sequence[Cell]) -> dict[str, int]:
    """Nodes and tasks per node of every job: a task per rank for runs on several nodes, else one task.

    Raises:
        ContsegError: the runs differ in their nodes.
    """
    found = {(one.nodes, one.devices if one.nodes > 1 else 1) for one in (cell.recipe.training for cell in cells)}
    if len(found) > 1:
        raise ContsegError("--on slurm: the runs differ in training.nodes or training.devices; set one value for all")
    nodes, tasks = found.pop() if found else (1, 1)
    return {"nodes": nodes, "ntasks_per_node": tasks}


def options_of(texts: Sequence[str]) -> dict[str, Any]:
    """The options of sbatch from `--slurm`: KEY=VALUE, separated by commas; the time in minutes.

    Raises:
        ContsegError: not KEY=VALUE, a key is listed twice, or the time is missing or wrong.

    Example:
        >>> options_of(["partition=gpu,time=4:00:00,gres=gpu:1"])
        {'partition': 'gpu', 'time': 240, 'gres': 'gpu:1'}
        >>> options_of(["exclude=n1,n2,time=90", "mem-per-cpu=4G"])
        {'exclude': 'n1,n2', 'time': 90, 'mem_per_cpu': '4G'}
    """
    found: dict[str, Any] = {}
    for setting in (part for text in texts for part in re.split(r",(?=[a-z][a-z_-]*=)", text)):
        key, equals, value = setting.partition("=")
        if not equals or not value or not re.fullmatch(r"[a-z][a-z_-]*", key):
            raise ContsegError(f"--slurm: '{setting}': expected KEY=VALUE of sbatch, such as partition=gpu,time=4:00:00")
        if (name := key.replace("-", "_")) in found:
            raise ContsegError(f"--slurm: {key} is listed twice; remove one of them")
        found[name] = int(value) if value.isdecimal() else value
    if "time" not in found:
        raise ContsegError("--slurm: time is missing; add the time limit of a job, such as time=4:00:00")
    return found | {"time": minutes(str(found["time"]))}


def minutes(text: str) -> int:
    """A time limit of SLURM (MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS) in minutes, rounded up.

    Raises:
        ContsegError: it has another form.

    Example:
        >>> minutes("90"), minutes("4:00:00"), minutes("1-12"), minutes("0:30")
        (90, 240, 2160, 1)
    """
    text, comma, further = text.partition(",")
    if comma:
        raise ContsegError(f"--slurm: '{further}': expected KEY=VALUE of sbatch, such as gres=gpu:1")
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in (*parts, *([days] if dash else []))) or len(parts) > 3 or len(text) > 20:
        raise ContsegError(f"--slurm: time={text}: write minutes, HH:MM:SS or D-HH:MM:SS")
    numbers = [int(part) for part in parts]
    if dash:
        hours, mins, seconds = (*numbers, 0, 0)[:3]
    else:
        hours, mins, seconds = {1: (0, *numbers, 0), 2: (0, *numbers), 3: tuple(numbers)}[len(numbers)]
    return max(1, int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0))

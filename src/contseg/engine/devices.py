"""Accelerator, precision and worker processes on this machine."""

import os
import shutil

import torch

from contseg.engine.options import TrainingOptions


def accelerator_of(options: TrainingOptions) -> str:
    """`cpu` or `cuda`; `auto` is `cuda` if a GPU is available.

    Example:
        >>> accelerator_of(TrainingOptions(accelerator="cpu"))
        'cpu'
    """
    if options.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.accelerator


def precision_of(options: TrainingOptions) -> str:
    """The precision of a run on this machine: `amp` is `16-mixed` on a GPU and `32` on a CPU.

    Example:
        >>> precision_of(TrainingOptions(accelerator="cpu", precision="amp"))
        '32'
    """
    if options.precision == "amp":
        return "16-mixed" if accelerator_of(options) == "cuda" else "32"
    return options.precision


MOST_WORKERS = 8
"""Maximum number of worker processes; more are hardly faster."""
ROOM_TO_SHARE = 1 << 30
"""Free bytes of shared memory that batches from worker processes need."""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_little_shared_memory() -> bool:
    """Whether /dev/shm is too small to share batches, as in many containers."""
    return os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free < ROOM_TO_SHARE


def workers_of(options: TrainingOptions) -> int:
    """Worker processes per rank; `auto` is one less than the cores of the rank, at most `MOST_WORKERS`.

    `auto` is 0 if /dev/shm is too small to share batches.

    Example:
        >>> workers_of(TrainingOptions(workers=3)), workers_of(TrainingOptions(workers="auto", devices=1024))
        (3, 0)
    """
    if options.workers != "auto":
        return options.workers
    return 0 if has_little_shared_memory() else max(0, min(MOST_WORKERS, cores() // options.devices - 1))

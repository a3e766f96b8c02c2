"""Where a run computes, and at which precision, once the machine is known."""

import os
import shutil

import torch

from contseg.engine.options import TrainingOptions


def accelerator_of(options: TrainingOptions) -> str:
    """`cpu` or `cuda`; `auto` is a GPU where there is one.

    Example:
        >>> accelerator_of(TrainingOptions(accelerator="cpu"))
        'cpu'
    """
    if options.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.accelerator


def precision_of(options: TrainingOptions) -> str:
    """The precision that is computed with: `amp` is `16-mixed` on a GPU and `32` on a CPU.

    Example:
        >>> precision_of(TrainingOptions(accelerator="cpu", precision="amp"))
        '32'
    """
    if options.precision == "amp":
        return "16-mixed" if accelerator_of(options) == "cuda" else "32"
    return options.precision


MOST_WORKERS = 8
"""More processes than this hardly read faster."""
ROOM_TO_SHARE = 1 << 30
"""Bytes of shared memory below which batches of several processes may not fit."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_of(options: TrainingOptions) -> int:
    """The processes that read images for a rank; `auto` is one less than the cores of the rank, at most `MOST_WORKERS`.

    None where batches could not be shared with them: containers often have little memory at /dev/shm.

    Example:
        >>> workers_of(TrainingOptions(workers=3)), workers_of(TrainingOptions(workers="auto", devices=10_000))
        (3, 0)
    """
    if options.workers != "auto":
        return options.workers
    if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free < ROOM_TO_SHARE:
        return 0
    return max(0, min(MOST_WORKERS, cores() // options.devices - 1))

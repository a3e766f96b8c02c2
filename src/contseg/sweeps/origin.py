"""The code and the machine that a run was trained with."""

import os
import platform
from pathlib import Path

from contseg.engine.code import commit

ORIGIN = "origin.jsonl"
"""File in the folder of a run: commit and machine, a line per start and resume."""


def origin() -> dict[str, str | int | None]:
    """The `commit` of the package, the name of the `cpu`, and its number of `cores`."""
    return {"commit": commit(), "cpu": cpu_model(), "cores": os.cpu_count()}


def cpu_model() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()

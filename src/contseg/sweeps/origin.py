"""The code and the machine that a run was trained with."""

import os
import platform
import subprocess
from pathlib import Path

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


def commit() -> str:
    """The last commit of the package, followed by `with changes` if files differ from it; `unknown` outside a checkout."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", "."]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=package).stdout.strip()

    try:
        found, changed = git("log", "-1", "--format=%h"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found or 'unknown'}{' with changes' if changed else ''}"

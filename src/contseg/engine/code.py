"""Digests of the code, so that a step 0 trained by another version is not reused; and its commit, for the report."""

import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import torch

from contseg.digest import sha256

PACKAGE = __name__.partition(".")[0]
APART = ("cli", "dryrun", "recipes", "report", "sweeps")
"""Rooms that do not influence weights."""


@cache
def sources_digest() -> str:
    """SHA-256 over the sources of all rooms that can influence weights."""
    return sha256(*_sources(files(PACKAGE), APART))


def package_digest() -> str:
    """SHA-256 over PyTorch's version and `sources_digest`."""
    return sha256(torch.__version__, sources_digest())


def _sources(folder: Traversable, apart: tuple[str, ...] = ()) -> Iterator[bytes]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name not in apart:
                yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield f"{entry.name}\n".encode() + entry.read_bytes()


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

"""Figures with their origin, kept in a JSON file: machine, versions, commit and date of each."""

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contseg.atomic import write_text
from contseg.engine.devices import cores

FOLDER = Path(__file__).parent
SOURCES = ("src", "benchmarks", ":!benchmarks/*.json", ":!benchmarks/*.md")


def origin() -> dict[str, Any]:
    """Machine, versions, commit and date of what is measured now."""
    return {
        "cpu": cpu(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def cpu() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The last commit that changed what is measured, with `+` if files differ from it; "" without git."""
    last = _git("log", "-1", "--format=%h", "--abbrev=10", "--", *SOURCES)
    return f"{last}+" if last and _git("status", "--porcelain", "--", *SOURCES) else last


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


class Results:
    """Figures by name, written to the file with every new one.

    Args:
        path: of the file; created with the first figure.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = Results(Path(folder) / "results.json")
        ...     results.keep("row", {"value": 1.5}, {"commit": "abc", "cpu": "x"})
        ...     again = Results(Path(folder) / "results.json")
        >>> again["row"]["value"], again.is_current("row", {"commit": "abc", "cpu": "x"}), again["other"]
        (1.5, True, None)
    """

    def __init__(self, path: Path):
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._rows = json.loads(path.read_text(encoding="utf-8"))["rows"]

    def __getitem__(self, name: str) -> dict[str, Any] | None:
        """The kept figures of a row with their `origin`, or None."""
        return self._rows.get(name)

    def keep(self, name: str, figures: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        """Keep new figures and write the file."""
        self._rows[name] = {**figures, "origin": dict(made)}
        newest = {key: value for key, value in made.items() if key != "threads"}
        text = json.dumps({**newest, "rows": dict(sorted(self._rows.items()))}, indent=1) + "\n"
        write_text(self.path, text)

    def is_current(self, name: str, made: Mapping[str, Any]) -> bool:
        """Whether a row was measured with this commit on this kind of machine; never with changed files."""
        kept = self._rows.get(name, {}).get("origin", {})
        same = all(kept.get(key) == made.get(key) for key in ("commit", "cpu", "cores", "gpu"))
        return bool(kept) and same and not str(made.get("commit") or "+").endswith("+")

    def origins(self, names: Mapping[str, Any]) -> list[str]:
        """Machines and commits of these rows, in words, each once."""
        lines: dict[str, None] = {}
        for name in names:
            if made := self._rows.get(name, {}).get("origin"):
                lines[described(made)] = None
        return list(lines)


def described(made: Mapping[str, Any]) -> str:
    """An origin in words.

    Example:
        >>> described({"cpu": "AMD EPYC", "cores": 2, "versions": {"torch": "2.13"}, "commit": "abc", "date": "2026-01-02"})
        '2 cores of AMD EPYC, PyTorch 2.13, commit abc, 2026-01-02'
    """
    machine = made.get("gpu") or f"{made['cores']} cores of {made['cpu']}"
    return f"{machine}, PyTorch {made['versions']['torch']}, commit {made['commit'] or '-'}, {made['date']}"

"""`make soak`: kill trainings, damage their files, repeat the tables of bad input, and write docs/reliability.md.

python -m benchmarks.soak                     # all of it, about 20 minutes on two idle cores
python -m benchmarks.soak --parts kills --kills 300
python -m benchmarks.soak --only-page         # the page of the results in --out
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.soak_damage import damage_all
from benchmarks.soak_kills import TRAININGS, kill_all
from benchmarks.soak_page import page
from benchmarks.soak_process import preload
from contseg.atomic import write_text
from contseg.errors import ContsegError
from contseg.sweeps.origin import origin
from contseg.sweeps.page import write

TABLES = {
    "bad input": ("tests/cli/test_bad_input.py", "-k", "EveryMistake"),
    "bad values, files and options": (
        "tests/cli/test_bad_input.py",
        "tests/data/test_bad_input.py",
        "-k",
        "not EveryMistake",
    ),
    "security": ("tests/security",),
}
"""Tests that are counted, by title."""


def count_inputs(out: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the tables of tests; returns the numbers of passed and failed cases by title."""
    counts = {}
    for title, words in TABLES.items():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *words]
        last = subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()[-1]
        found = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error)", last)}
        counts[title] = {"passed": found.get("passed", 0), "failed": found.get("failed", 0) + found.get("error", 0)}
        say(f"{title}: {last}")
    return counts


def measure_cost(out: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The cost of checksums and syncs; in a process of its own, as a process that has trained cannot fork others."""
    command = [sys.executable, "-m", "benchmarks.soak_cost"]
    cost = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    say(f"cost: {cost}")
    return cost


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Reliability, measured.")
    parser.add_argument("--kills", type=int, default=100, help="kills in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of moments, signals and damages")
    parser.add_argument("--setups", default="", help=f"kill only these, divided by commas: {', '.join(TRAININGS)}, ...")
    parser.add_argument("--parts", default=",".join(("kills", "damages", "inputs", "cost")), help="measure only these")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="folder to work in")
    parser.add_argument("--docs", type=Path, default=Path("docs/reliability.md"), help="the page")
    parser.add_argument("--only-page", action="store_true", help="write the page of the last results")
    return parser.parse_args(arguments)


def soak(options: argparse.Namespace) -> int:
    """Measure, and write the page; returns the number of faults."""
    setups = [name.strip() for name in options.setups.split(",") if name.strip()]
    measures: dict[str, Callable[..., Any]] = {
        "kills": lambda out, seed, say: kill_all(out, options.kills, seed, say, setups),
        "damages": damage_all,
        "inputs": count_inputs,
        "cost": measure_cost,
    }
    place = options.out / "results.json"
    results = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    if not options.only_page:
        preload()
        started = time.monotonic()
        for name in options.parts.split(","):
            results[name] = measures[name](options.out.resolve() / name, options.seed, lambda text: print(text, flush=True))
            results["origin"] = {**origin(), "seed": options.seed}
            write_text(place, json.dumps(results, indent=1))
        print(f"{(time.monotonic() - started) / 60:.0f} min")
    write(options.docs, page(results))
    print(f"page: {options.docs}")
    killed = sum(len(count["faults"]) for count in results.get("kills", {}).values())
    return killed + sum(row["outcome"] == "fault" for row in results.get("damages", ()))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        sys.exit(min(1, soak(parsed(sys.argv[1:]))))
    except ContsegError as error:
        sys.exit(f"error: {error}")

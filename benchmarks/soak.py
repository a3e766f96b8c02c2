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
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak_damage import damage_all
from benchmarks.soak_kills import TRAININGS, kill_all
from benchmarks.soak_page import page
from benchmarks.soak_process import preload
from contseg.errors import ContsegError
from contseg.sweeps.origin import origin
from contseg.sweeps.page import kept_notes, write

PARTS = ("kills", "damages", "inputs", "cost")
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


def count_inputs(say: Callable[[str], None]) -> dict[str, Any]:
    """Run the tables of tests; returns the numbers of passed and failed cases by title."""
    counts = {}
    for title, words in TABLES.items():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *words]
        last = subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()[-1]
        found = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error)", last)}
        counts[title] = {"passed": found.get("passed", 0), "failed": found.get("failed", 0) + found.get("error", 0)}
        say(f"{title}: {last}")
    return counts


def measure_cost(say: Callable[[str], None]) -> dict[str, Any]:
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
    parser.add_argument("--parts", default=",".join(PARTS), help="measure only these")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="folder to work in")
    parser.add_argument("--docs", type=Path, default=Path("docs/reliability.md"), help="the page")
    parser.add_argument("--only-page", action="store_true", help="write the page of the last results")
    return parser.parse_args(arguments)


def measure(name: str, options: argparse.Namespace) -> None:
    """Measure a part, and write its results to `NAME.json`."""
    out, say = options.out.resolve() / name, lambda text: print(text, flush=True)
    if name == "kills":
        setups = [one.strip() for one in options.setups.split(",") if one.strip()]
        results: Any = kill_all(out, options.kills, options.seed, say, setups)
    elif name == "damages":
        results = damage_all(out, options.seed, say)
    else:
        results = count_inputs(say) if name == "inputs" else measure_cost(say)
    write(options.out / f"{name}.json", json.dumps(results, indent=1))


def in_parallel(names: Sequence[str], options: argparse.Namespace) -> None:
    """Measure parts, each in a process of its own.

    Raises:
        ContsegError: a part failed; its traceback was printed.
    """
    started = {}
    for name in names:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                measure(name, options)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        started[process] = name
    failed = [name for process, name in started.items() if os.waitpid(process, 0)[1]]
    if failed:
        raise ContsegError(f"soak: {' and '.join(failed)} failed, as printed above")


def soak(options: argparse.Namespace) -> int:
    """Measure, and write the page; returns the number of faults."""
    if not options.only_page:
        preload()
        started = time.monotonic()
        parts = [name for name in PARTS if name in options.parts.split(",")]
        in_parallel([name for name in parts if name in ("kills", "damages")], options)
        for name in parts:
            if name in ("inputs", "cost"):
                measure(name, options)
        write(options.out / "origin.json", json.dumps({**origin(), "seed": options.seed}))
        print(f"{(time.monotonic() - started) / 60:.0f} min")
    places = {name: options.out / f"{name}.json" for name in (*PARTS, "origin")}
    results = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in places.items() if path.is_file()}
    write(options.docs, page(results, kept_notes(options.docs)))
    print(f"page: {options.docs}")
    killed = sum(len(count["faults"]) for count in results.get("kills", {}).values())
    return killed + sum(row["outcome"] == "fault" for row in results.get("damages", ()))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        sys.exit(min(1, soak(parsed(sys.argv[1:]))))
    except ContsegError as error:
        sys.exit(f"error: {error}")

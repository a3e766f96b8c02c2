"""`make bench`: what things cost, as ratios against a plain yardstick in the same run, and the bars that they must reach.

    python -m benchmarks                    # what is not measured at this commit; stopped and started again it continues
    python -m benchmarks --fresh            # everything again
    python -m benchmarks --rows pod,sample  # these rows, again; the others are kept from the file
    python -m benchmarks --only-page        # the tables in docs/performance.md of what is kept

Absolute times depend on the machine. Ratios are medians of pairs that run in turn, so that they can be compared.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.page import PAGE, TITLES, bench_block, cells, write_block
from benchmarks.results import FOLDER, Results, origin
from benchmarks.rows import BARRED, ROWS, Row, measurement
from benchmarks.timing import in_pairs
from contseg.engine.allocator import kept_memory
from contseg.errors import ContsegError, did_you_mean

RESULTS = FOLDER / "results.json"
GPU_RESULTS = FOLDER / "results-gpu.json"
WIDTH = 180
"""Of the table in a file."""


def measure(row: Row) -> dict[str, Any] | None:
    """The figures of a row; None if nothing measures it here."""
    work = measurement(row)
    if work is None:
        return None
    if row.unit in ("MiB", "s"):
        return {"value": float(work())}
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if row.on_one_core else threads)
    try:
        with kept_memory():  # as in a run
            found = in_pairs(*work(), row.pairs, time.process_time if row.on_one_core else time.perf_counter, row.warm)
    finally:
        torch.set_num_threads(threads)
    lowest, highest = found.lowest, found.highest
    value = 1 / found.ratio if row.more_is_better else found.ratio - row.less
    lowest, highest = lowest - row.less, highest - row.less
    if row.more_is_better:
        lowest, highest = 1 / highest, 1 / lowest
    return {
        "value": value,
        "lowest": lowest,
        "highest": highest,
        "seconds": [found.ours, found.yardstick],
        "pairs": found.pairs,
    }


def measure_all(rows: Mapping[str, Row], results: Results, console: Console, again: bool) -> list[str]:
    """Measure rows and keep each as it is done.

    Args:
        again: measure what the file has from this commit and machine too.

    Returns:
        the rows that ended with an error, and those that nothing measures.
    """
    made, failed = origin(), []
    for name, row in rows.items():
        if not again and results.is_current(name, made):
            continue
        started = time.perf_counter()
        try:
            figures = measure(row)
        except (ContsegError, RuntimeError) as error:  # another row may be measured nevertheless
            failed.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if figures is None:
            failed.append(f"{name}: nothing measures it here")
            continue
        results.keep(name, figures, made)
        passed = time.perf_counter() - started
        text = f"{name}: {figures['value']:.3f} {row.verdict(figures['value'])} ({passed:.0f} s)"
        console.print(text, highlight=False, markup=False)
    return failed


def show(results: Results, gpu: Results, console: Console) -> None:
    """Print the table."""
    table = Table(title=f"costs, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for place, title in enumerate(TITLES):
        table.add_column(title, justify="left" if place < 2 else "right")
    for row in ROWS.values():
        table.add_row(*cells(row, results, gpu), end_section=row is BARRED[-1])
    console.print(table, markup=False)


def chosen(names: str | None) -> dict[str, Row]:
    """Rows by name; only those of a list with commas, if there is one.

    Raises:
        ContsegError: no such row.
    """
    wanted = list(ROWS) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in ROWS:
            raise ContsegError(f"--rows: unknown row '{name}'; {did_you_mean(name, ROWS)}")
    return {name: ROWS[name] for name in wanted}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the file and the page, print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", help="measure these again, with commas; the others are kept")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--only-page", action="store_true", help="measure nothing, write the page of what is kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the figures")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the tables")
    options = parser.parse_args(arguments)
    results, gpu = Results(options.results), Results(GPU_RESULTS)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    failed: list[str] = []
    try:
        if not options.only_page:
            again = options.fresh or options.rows is not None
            failed = measure_all(chosen(options.rows), results, console, again)
        write_block("bench", bench_block(results, gpu), options.page)
    except ContsegError as error:
        print(error, file=sys.stderr)
        return 1
    show(results, gpu, console)
    for line in failed:
        console.print(f"not measured: {line}", highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

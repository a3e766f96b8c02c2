"""The command of a table of runs: train what is not finished, and write the page."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.table_page import Table, kept_notes, page, plan_warnings, read_results, write
from benchmarks.table_progress import Progressing, read_clock
from benchmarks.table_runs import Row, cells_of, tasks_of, train_all
from contseg.cli.console import console
from contseg.errors import ContsegError, did_you_mean


def chosen_rows(rows: Mapping[str, Row], names: str | None) -> dict[str, Row]:
    """Rows by name; only those of a list with commas, if there is one.

    Raises:
        ContsegError: no such row.
    """
    wanted = _split(names) if names is not None else list(rows)
    for name in wanted:
        if name not in rows:
            raise ContsegError(f"--rows: unknown row '{name}'; {did_you_mean(name, rows)}")
    return {name: rows[name] for name in rows if name in wanted}


def chosen_seeds(text: str) -> tuple[int, ...]:
    """Seeds of a list with commas.

    Raises:
        ContsegError: not whole numbers.
    """
    seeds = _split(text)
    if not seeds or not all(seed.isdecimal() for seed in seeds):
        raise ContsegError(f"--seeds: give whole numbers with commas between (got '{text}')")
    return tuple(sorted({int(seed) for seed in seeds}))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def with_more_seeds(table: Table, seeds: Sequence[int]) -> Table:
    """The table with these seeds in every row, beside its own."""
    sections = {
        title: {name: replace(row, seeds=tuple(sorted({*row.seeds, *seeds}))) for name, row in rows.items()}
        for title, rows in table.sections.items()
    }
    return replace(table, sections=sections)


def make_table(table: Table, options: argparse.Namespace) -> int:
    """Train what is not finished, write the page; returns the exit code."""
    rows, seeds = chosen_rows(table.rows, options.rows), chosen_seeds(options.seeds) if options.seeds is not None else ()
    if seeds:
        rows = {name: replace(row, seeds=seeds) for name, row in rows.items()}
    notes = kept_notes(options.docs)  # before hours of training, not after
    overrides = [*table.prepare(options.out), *options.overrides]
    problems: dict[str, str] = {}
    if not options.only_table:
        cells = cells_of(rows, overrides, options.out)
        with console.status("looking at what there is"):
            tasks = tasks_of(cells)
        if tasks:
            watcher = Progressing(tasks, len(cells) - len(tasks), len(cells), options.out)
            try:
                problems = train_all(tasks, options.out, options.workers, watcher)
            finally:
                watcher.stop()
    shown = with_more_seeds(table, seeds)
    results = read_results(cells_of(shown.rows, overrides, options.out))
    write(options.docs, page(shown, results, overrides, read_clock(options.out / "clock.json"), notes))
    console.print(f"page: {options.docs}", soft_wrap=True)
    for warning in plan_warnings(results):
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    for title, problem in problems.items():
        console.print(f"not finished: {title}: {problem}", highlight=False, soft_wrap=True)
    return 1 if problems else 0


def parsed(table: Table, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    module = f"benchmarks.{table.name.replace('-', '_')}"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=table.title)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to every recipe")
    parser.add_argument("--rows", help=f"only these, with commas between: {', '.join(table.rows)}")
    parser.add_argument("--seeds", help="seeds to train, with commas between (default: those of each row)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time (default: cores)")
    parser.add_argument("--out", type=Path, default=Path("runs") / table.name, help="folder of the runs")
    parser.add_argument("--docs", type=Path, default=table.docs, help="the page")
    parser.add_argument("--only-table", action="store_true", help="train nothing, write the page of what is finished")
    options = parser.parse_intermixed_args(arguments)
    if options.workers < 1:
        parser.error("--workers: give 1 or more")
    return options


def main(table: Table) -> None:
    """The command, from the words that it was called with to its exit."""
    try:
        code = make_table(table, parsed(table, sys.argv[1:]))
    except ContsegError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        code = 130
    sys.exit(code)

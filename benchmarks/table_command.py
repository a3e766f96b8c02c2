"""The command of a table that the repository keeps: a sweep with rows of its own and a page in docs/."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.kept_runs import keep, read_kept
from contseg.cli.console import console
from contseg.cli.sweep import Ways, chosen_seeds, train_rows, write_page
from contseg.errors import ContsegError, did_you_mean
from contseg.interruption import catching
from contseg.sweeps.cells import Row, cells_of
from contseg.sweeps.page import Page, kept_notes

FORGETTING = "[What forgetting is](metrics.md)."


@dataclass(frozen=True, kw_only=True)
class Table(Page):
    """A page, and where it and its runs are.

    Args:
        docs: the page.
        prepare: makes what the rows need in the folder of the runs, if it is missing; returns overrides of every recipe.
        write: writes the page; called as `write_page`.
        kept: folder of `kept_runs`, so that several machines can share the work; None keeps results in `out` alone.
    """

    docs: Path
    prepare: Callable[[Path], list[str]] = lambda out: []
    write: Callable[..., object] = write_page
    kept: Path | None = None

    @property
    def name(self) -> str:
        """Of the make target and of the folder of the runs."""
        return self.command.removeprefix("make ")


def chosen_rows(rows: Mapping[str, Row], names: str | None) -> dict[str, Row]:
    """Rows by name; only those of a list with commas, if there is one.

    Raises:
        ContsegError: no such row.
    """
    wanted = list(rows) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in rows:
            raise ContsegError(f"--rows: unknown row '{name}'; {did_you_mean(name, rows)}")
    return {name: rows[name] for name in rows if name in wanted}


def with_more_seeds(table: Table, seeds: Sequence[int]) -> Table:
    """The table with these seeds in every row, in addition to its own."""
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
    kept_notes(options.docs)  # an error before hours of training, not after
    overrides = [*table.prepare(options.out), *options.overrides]
    shown, problems = with_more_seeds(table, seeds), dict[str, str]()
    ways = Ways(jobs=options.jobs, overwrite=True, accept_changes=options.accept_changes)
    if table.kept is None:
        if not options.only_table:
            problems = train_rows(rows, overrides, options.out, ways)
        table.write(shown, options.docs, overrides, options.out)
    else:
        cells = cells_of(shown.rows, overrides, options.out)
        try:
            if not options.only_table:
                problems = train_rows(rows, overrides, options.out, ways, finished=read_kept(table.kept, cells))
        finally:  # also of a part
            kept = keep(table.kept, cells)
        table.write(shown, options.docs, overrides, options.out, kept)
    for title, problem in problems.items():
        console.print(f"not finished: {title}: {problem}", highlight=False, markup=False, soft_wrap=True)
    return 1 if problems else 0


def parsed(table: Table, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    module = f"benchmarks.{table.name.replace('-', '_')}"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=table.title)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to every recipe")
    parser.add_argument("--rows", help=f"only these, divided by commas: {', '.join(table.rows)}")
    parser.add_argument("--seeds", help="seeds to train, divided by commas (default: those of each row)")
    parser.add_argument("--jobs", type=int, help="runs in parallel (default: GPUs, or cores)")
    parser.add_argument("--out", type=Path, default=Path("runs") / table.name, help="folder of the runs")
    parser.add_argument("--docs", type=Path, default=table.docs, help="the page")
    parser.add_argument("--only-table", action="store_true", help="train nothing, write the page of what is finished")
    parser.add_argument("--accept-changes", action="store_true", help="resume runs although data or code changed")
    options = parser.parse_intermixed_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs: give 1 or more")
    return options


def main(table: Table) -> None:
    """Entry point."""
    try:
        with catching():
            code = make_table(table, parsed(table, sys.argv[1:]))
    except ContsegError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("Interrupted. Resume with the same command.", file=sys.stderr)
        code = 130
    sys.exit(code)

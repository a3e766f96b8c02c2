"""`contseg dry-run`."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from contseg.cli.console import PlainColumn, console
from contseg.dryrun.rehearsal import Rehearsal, rehearse
from contseg.dryrun.stand_ins import write_images
from contseg.errors import ContsegError
from contseg.recipes.published import network_key
from contseg.recipes.read import is_of_published_data, read_recipe, recipe_names


@dataclass(frozen=True)
class Row:
    """A recipe to check.

    Args:
        source: its name or file.
        full: at its crop; otherwise at a quarter.
    """

    source: str
    full: bool

    @property
    def label(self) -> str:
        """Its name in the table."""
        return self.source if self.full else f"{self.source} (1/4)"


Outcome = Rehearsal | str
"""The results, or the problem."""


def run_dry_run(source: str, overrides: list[str], *, processes: int | None = None, full: bool | None = None) -> None:
    """Check recipes, each in its own process, and print a line when one ends.

    Args:
        source: a recipe file or name; a pattern such as `voc/*`; or `all`, every packaged recipe of a published dataset.
        processes: recipes checked in parallel; they share the cores. Default: 2, if there are two recipes and cores.
        full: at the crop of the recipe, or at a quarter of it; default: in full for a single recipe, a quarter for
            several. `all` then begins with one recipe of every network in full.

    Raises:
        ContsegError: nothing matches; or, at the end, the recipes that failed.
    """
    rows = rows_of(source, overrides, full)
    if processes is None:
        processes = min(2, len(rows), os.cpu_count() or 1)
    if processes < 1:
        raise ContsegError(f"--processes: must be at least 1 (got {processes})")
    started, failed = time.perf_counter(), []
    width = max(len(row.label) for row in rows)
    with tempfile.TemporaryDirectory(prefix="contseg-") as folder, _bar() as progress:
        _print(f"{'recipe':{width}}  parameters, M  seconds  memory, GiB")
        task = progress.add_task("recipes", total=len(rows))
        for row, outcome in _outcomes(rows, overrides, processes, Path(folder)):
            progress.advance(task)
            _print(f"{row.label:{width}}  {_columns(outcome)}")
            if isinstance(outcome, str):
                failed.append(row.label)
    _print(f"{len(rows) - len(failed)} of {len(rows)} recipes passed in {time.perf_counter() - started:.0f} s")
    if failed:
        raise ContsegError(f"dry-run: {len(failed)} of {len(rows)} recipes failed: {', '.join(failed)}")


def rows_of(source: str, overrides: Sequence[str] = (), full: bool | None = None) -> list[Row]:
    """The recipes to check; arguments as of `run_dry_run`.

    Raises:
        ContsegError: a pattern that no packaged recipe matches.

    Example:
        >>> rows_of("digits/ssul*")
        [Row(source='digits/ssul-m_5-1', full=False), Row(source='digits/ssul_5-1', full=False)]
        >>> rows_of("digits/plop_5-1")
        [Row(source='digits/plop_5-1', full=True)]
    """
    if source == "all":
        names = [name for name in recipe_names() if is_of_published_data(name)]
        rows = [Row(name, bool(full)) for name in names]
        # the longest first, so that no process is left with one of them at the end
        return [Row(name, True) for name in one_of_each_network(names, overrides)] + rows if full is None else rows
    if not any(sign in source for sign in "*?[") or Path(source).is_file():
        read_recipe(source, overrides)  # a wrong name or key fails before anything is written
        return [Row(source, full is not False)]
    names = [name for name in recipe_names() if fnmatch(name, source)]
    if not names:
        raise ContsegError(f"'{source}': no packaged recipe matches; list all {len(recipe_names())} with: contseg recipes")
    return [Row(name, len(names) == 1 if full is None else full) for name in names]


def one_of_each_network(names: Sequence[str], overrides: Sequence[str] = ()) -> list[str]:
    """The first recipe of each combination of head and backbone.

    Example:
        >>> one_of_each_network(["voc/mib_15-5_disjoint", "voc/plop_15-1_disjoint", "voc/ssul_15-1_disjoint"])
        ['voc/mib_15-5_disjoint', 'voc/ssul_15-1_disjoint']
    """
    first: dict[str, str] = {}
    for name in names:
        with suppress(ContsegError):  # which the row reports
            first.setdefault(network_key(read_recipe(name, overrides)), name)
    return list(first.values())


def _outcomes(rows: Sequence[Row], overrides: list[str], processes: int, folder: Path) -> Iterator[tuple[Row, Outcome]]:
    """Every row with its outcome, in the order in which they end."""
    _write_images(rows, overrides, folder)
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ThreadPoolExecutor(processes) as pool:
        waiting: dict[Future[Outcome], Row] = {
            pool.submit(_in_own_process, row, overrides, folder, threads): row for row in rows
        }
        try:
            while waiting:
                for ended in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(ended), ended.result()
        except KeyboardInterrupt:  # a check may take minutes and leaves nothing to save
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _write_images(rows: Sequence[Row], overrides: list[str], folder: Path) -> None:
    """Write the images before any row needs them, so that two rows do not write the same ones."""
    for row in rows:
        with suppress(ContsegError):  # which the row reports
            write_images(read_recipe(row.source, overrides).data.dataset, folder)


def _in_own_process(row: Row, overrides: list[str], folder: Path, threads: int) -> Outcome:
    """Check a row in a new process, which has its own peak of memory and may run out of it."""
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            return pool.submit(attempt, row, overrides, folder, threads).result()
        except BrokenProcessPool:
            return "its process was killed, perhaps because memory ran out"


def _context() -> multiprocessing.context.BaseContext:
    """Processes that start with everything imported, on systems that have them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def attempt(row: Row, overrides: list[str], folder: Path, threads: int) -> Outcome:
    """Check a row with at most so many threads; an error of any kind is returned as text.

    Args:
        folder: where rows share synthetic images.
    """
    torch.set_num_threads(min(threads, torch.get_num_threads()))  # what OMP_NUM_THREADS allows
    try:
        return rehearse(row.source, overrides, quarter=not row.full, folder=folder)
    except ContsegError as error:
        return str(error)
    except Exception as error:  # a recipe that makes the program fail must not keep the others from being tried
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _columns(outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"{'-':>13}  {'-':>7}  {'-':>11}  {outcome}"
    memory = "-" if outcome.memory is None else f"{outcome.memory:.1f}"
    return f"{outcome.parameters / 1e6:13.2f}  {outcome.seconds:7.1f}  {memory:>11}  ok"


def _print(text: str) -> None:
    # a line stays a line in a log
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _bar() -> Progress:
    columns = [
        PlainColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    return Progress(*columns, console=console, transient=True)

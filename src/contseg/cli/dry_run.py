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

from contseg.cli.console import console, progress_bar
from contseg.dryrun.rehearsal import Rehearsal, rehearse
from contseg.dryrun.stand_ins import write_images
from contseg.errors import ContsegError
from contseg.recipes.published import network_key
from contseg.recipes.read import is_of_published_data, read_recipe, recipe_names


@dataclass(frozen=True)
class Row:
    """A recipe to check.

    Args:
        source: name or file of the recipe.
        full: use its crop; otherwise a quarter of it.
    """

    source: str
    full: bool

    @property
    def label(self) -> str:
        """The name in the table."""
        return self.source if self.full else f"{self.source} (1/4)"


Outcome = Rehearsal | str
"""The results of a check, or the error message."""


def run_dry_run(source: str, overrides: list[str], *, processes: int | None = None, full: bool | None = None) -> None:
    """Check recipes, each in its own process, and print a line when one ends.

    Args:
        source: a recipe file or name; a pattern such as `voc/*`; or `all`, every packaged recipe of a published dataset.
        processes: recipes checked in parallel, which share the cores. Default: 2, if there are two recipes and cores.
        full: use the crop of the recipe, or a quarter of it. Default: in full for a single recipe, a quarter for several;
            `all` then begins with one recipe per network in full.

    Raises:
        ContsegError: no recipe matches, or, at the end, recipes failed.
    """
    rows = rows_of(source, overrides, full)
    if processes is None:
        processes = min(2, len(rows), os.cpu_count() or 1)
    if processes < 1:
        raise ContsegError(f"--processes: must be at least 1 (got {processes})")
    started, failed = time.perf_counter(), []
    width = max(len(row.label) for row in rows)
    with tempfile.TemporaryDirectory(prefix="contseg-") as folder, progress_bar("recipes") as progress:
        _print(f"{'recipe':{width}}  parameters, M  seconds  memory, GiB")
        progress(0, len(rows))
        for done, (row, outcome) in enumerate(_outcomes(rows, overrides, processes, Path(folder)), start=1):
            progress(done, len(rows))
            _print(f"{row.label:{width}}  {_columns(outcome)}")
            if isinstance(outcome, str):
                failed.append(row.label)
    _print(f"{len(rows) - len(failed)} of {len(rows)} recipes passed in {time.perf_counter() - started:.0f} s")
    if failed:
        raise ContsegError(f"dry-run: {len(failed)} of {len(rows)} recipes failed: {', '.join(failed)}")


def rows_of(source: str, overrides: Sequence[str] = (), full: bool | None = None) -> list[Row]:
    """The recipes to check; arguments as in `run_dry_run`.

    Raises:
        ContsegError: no packaged recipe matches the pattern.

    Example:
        >>> rows_of("digits/ssul*")
        [Row(source='digits/ssul-m_5-1', full=False), Row(source='digits/ssul_5-1', full=False)]
        >>> rows_of("digits/plop_5-1")
        [Row(source='digits/plop_5-1', full=True)]
    """
    if source == "all":
        names = [name for name in recipe_names() if is_of_published_data(name)]
        rows = [Row(name, bool(full)) for name in names]
        # longest first, so that none of them is started last
        return [Row(name, True) for name in one_of_each_network(names, overrides)] + rows if full is None else rows
    if not any(sign in source for sign in "*?[") or Path(source).is_file():
        read_recipe(source, overrides)  # fails on a wrong name or key before anything is written
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
    """Every row with its outcome, in the order of completion."""
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
        except KeyboardInterrupt:  # a check takes minutes and has nothing to save
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _write_images(rows: Sequence[Row], overrides: list[str], folder: Path) -> None:
    """Write all images first, so that two rows do not write the same ones."""
    for row in rows:
        with suppress(ContsegError):  # which the row reports
            write_images(read_recipe(row.source, overrides).data.dataset, folder)


def _in_own_process(row: Row, overrides: list[str], folder: Path, threads: int) -> Outcome:
    """Check a row in a new process, so that its peak memory is measured and running out of memory ends only this row."""
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            return pool.submit(attempt, row, overrides, folder, threads).result()
        except BrokenProcessPool:
            return "its process was killed, perhaps because memory ran out"


def _context() -> multiprocessing.context.BaseContext:
    """Processes that start with all modules imported, where the system supports it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def attempt(row: Row, overrides: list[str], folder: Path, threads: int) -> Outcome:
    """Check a row; an error of any kind is returned as text.

    Args:
        folder: of the synthetic images, which rows share.
        threads: maximum number of CPU threads.
    """
    torch.set_num_threads(min(threads, torch.get_num_threads()))  # what OMP_NUM_THREADS allows
    try:
        return rehearse(row.source, overrides, quarter=not row.full, folder=folder)
    except ContsegError as error:
        return str(error)
    except Exception as error:  # the other recipes are still checked
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _columns(outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"{'-':>13}  {'-':>7}  {'-':>11}  {outcome}"
    memory = "-" if outcome.memory is None else f"{outcome.memory:.1f}"
    return f"{outcome.parameters / 1e6:13.2f}  {outcome.seconds:7.1f}  {memory:>11}  ok"


def _print(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)  # one line in a log

"""The runs of a sweep: each in its own process, with a shared step 0, and resumable after a kill."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from contseg.children import end, last_line, start
from contseg.engine.cache import StepCache
from contseg.engine.overwrite import require_free
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.lock import Lock, held
from contseg.manifest import Manifest
from contseg.recipes.build import make_job, resumed_recipe, start_run
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.sweeps.origin import origin

ORIGIN = "origin.jsonl"
"""File in the folder of a run: commit and machine, a line per start and resume."""
LOG = "log.txt"


@dataclass(frozen=True)
class Row:
    """A row of the table: a recipe that is trained with several seeds.

    Args:
        label: name in the table.
        recipe: name or file of the recipe.
        overrides: overrides of the recipe.
        seeds: one run per seed.
        by_seed: further overrides of the run of a seed, such as its class order.
    """

    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    by_seed: Callable[[int], tuple[str, ...]] = lambda seed: ()


@dataclass(frozen=True, eq=False)
class Cell:
    """A row with one seed, that is, one run in `OUT/ROW/SEED`."""

    row: str
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def run(self) -> Run:
        """The run in the folder."""
        return Run(self.folder)

    @property
    def title(self) -> str:
        """Row and seed as text."""
        return f"{self.row}, seed {self.seed}"

    @property
    def begun(self) -> bool:
        """Whether the folder contains a run of this very recipe."""
        try:
            resumed_recipe(self.folder, self.recipe)
        except ContsegError:
            return False
        return True

    @property
    def finished(self) -> bool:
        """Whether that run is finished."""
        return self.run.summary() is not None and self.begun

    @property
    def past_step_0(self) -> bool:
        """Whether its step 0 is finished."""
        return (self.folder / "steps" / "00" / "confusion.npz").is_file()


def cells_of(rows: Mapping[str, Row], overrides: Sequence[str], out: Path) -> list[Cell]:
    """All runs, seed by seed, so that every row of an unfinished sweep has about the same number of seeds.

    Raises:
        ContsegError: a recipe does not exist or has an invalid key.
    """
    return [
        Cell(
            row=name,
            seed=seed,
            recipe=read_recipe(row.recipe, [*row.overrides, *row.by_seed(seed), *overrides, f"training.seed={seed}"]),
            folder=out / name / str(seed),
        )
        for seed in sorted({seed for row in rows.values() for seed in row.seeds})
        for name, row in rows.items()
        if seed in row.seeds
    ]


@dataclass(frozen=True, eq=False)
class Task:
    """An unfinished cell.

    Args:
        key: cache key of step 0.
        images: images per epoch of each step.
    """

    cell: Cell
    key: str
    images: tuple[int, ...]

    def work(self, shares: bool) -> int:
        """Training images over all epochs; without step 0 if another run trains it (`shares`)."""
        epochs = self.cell.recipe.training.epochs_of
        return sum(count * epochs(step) for step, count in enumerate(self.images) if step or not shares)

    def done(self, shares: bool) -> int:
        """Training images so far, see `work`."""
        lines = self.cell.run.metrics()
        return sum(self.images[line["step"]] for line in lines if line["kind"] == "epoch" and (line["step"] or not shares))


def tasks_of(cells: Sequence[Cell], overwrite: bool = True) -> list[Task]:
    """The unfinished cells, after the checks of training.

    Args:
        overwrite: whether runs of other recipes may be replaced; those without a saved state always are.

    Raises:
        ContsegError: a recipe cannot be trained, or a folder contains other files or a run of another recipe.
    """
    tasks = []
    for cell in cells:
        if cell.finished:
            continue
        require_free(cell.folder, overwrite=True)
        if not overwrite and cell.run.last_begun() >= 0:  # others failed before their first saved state
            resumed_recipe(cell.folder, cell.recipe, "replace it with --overwrite, or choose another folder with --out")
        job = make_job(cell.recipe, cell.folder, new=not cell.begun)
        tasks.append(Task(cell, job.first_step_key(), tuple(len(step.train) for step in job.scenario)))
    return tasks


def next_task(waiting: Sequence[Task], learning: set[str], cached: Callable[[str], bool]) -> Task | None:
    """The first task whose step 0 is cached, or is not being trained by another run.

    Args:
        learning: keys of the steps 0 that are being trained.
        cached: whether the step 0 of a key is in the cache.
    """
    return next((task for task in waiting if task.key not in learning or cached(task.key)), None)


class Watcher:
    """Receives the progress of a sweep; this one ignores it. Override the calls that you need."""

    def started(self) -> None:
        """All run folders exist."""

    def progressed(self, running: Sequence[Task]) -> None:
        """Called several times a second."""

    def ended(self, task: Task, problem: str | None) -> None:
        """A run is finished, or failed with this error."""


def train_all(
    tasks: Sequence[Task], out: Path, workers: int, watcher: Watcher | None = None, *, accept_changes: bool = False
) -> dict[str, str]:
    """Train every task in its own process, `workers` in parallel; the others continue when a run fails.

    Args:
        accept_changes: resume runs although data or code changed since they began, which marks them.

    Returns:
        Title and error of every run that failed.

    Raises:
        ContsegError: another sweep is running in the folder.
    """
    watcher, cache = watcher or Watcher(), (out / "cache").resolve()
    waiting, problems = list(tasks), {}
    running: dict[Task, subprocess.Popen] = {}

    def cached(key: str) -> bool:
        return StepCache(cache, key).filled

    with only_sweep(out) as lock:
        for task in tasks:
            begin(task.cell)
        try:
            watcher.started()
            while waiting or running:
                for task in [task for task, process in running.items() if process.poll() is not None]:
                    problem = _problem(task.cell, running.pop(task))
                    if problem:
                        problems[task.cell.title] = problem
                    watcher.ended(task, problem)
                learning = {task.key for task in running if not task.cell.past_step_0}
                following = next_task(waiting, learning, cached) if len(running) < workers else None
                if following:
                    waiting.remove(following)
                    running[following] = _started(following.cell, cache, lock, accept_changes)
                    continue
                watcher.progressed(list(running))
                time.sleep(0.2)
        finally:
            end(list(running.values()))
    return problems


def only_sweep(out: Path) -> AbstractContextManager[Lock]:
    """The lock on the folder of a sweep, which the processes of its runs share."""
    return held(out / "sweep.lock", f"{out}: a sweep")


def begin(cell: Cell) -> None:
    """Create the run of a cell unless it exists; the files of a run of another recipe are deleted."""
    if not cell.begun:
        start_run(cell.recipe, cell.folder, overwrite=True)


def _started(cell: Cell, cache: Path, lock: Lock, accept_changes: bool) -> subprocess.Popen:
    """A process that trains or resumes the run of a cell, on one thread."""
    Manifest(cell.folder).record(cell.folder / ORIGIN, cell.folder / LOG, grows=True)
    with (cell.folder / ORIGIN).open("a", encoding="utf-8") as file:
        file.write(json.dumps(origin()) + "\n")
    command = [sys.executable, "-m", "contseg.sweeps.worker", str(cell.folder), str(cache)]
    command += ["--accept-changes"] * accept_changes
    return start(command, cell.folder / LOG, lock, OMP_NUM_THREADS="1")


def _problem(cell: Cell, process: subprocess.Popen) -> str | None:
    end([process])  # closes its pipe
    if process.returncode == 0 and cell.run.summary():
        return None
    if process.returncode < 0:
        return f"killed by signal {-process.returncode}"
    return last_line(cell.folder / LOG)

"""Many runs from one command: in processes of their own, each step 0 learned once, gone on with after any kill."""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contseg.engine.cache import StepCache
from contseg.engine.job import Reporter
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError
from contseg.recipes.build import make_job, resumed_recipe, start_run
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe

ORIGIN = "origin.jsonl"
"""Beside the files of a run: commit and machine, a line for each time that it was started or gone on with."""


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Args:
        label: in the table.
        recipe: a packaged recipe.
        overrides: of the recipe.
        seeds: a run for each.
    """

    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True, eq=False)
class Cell:
    """A row with one seed: one run, in `<out>/<name of the row>/<seed>`."""

    row: str
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def run(self) -> Run:
        return Run(self.folder)

    @property
    def title(self) -> str:
        return f"{self.row}, seed {self.seed}"

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run of this very recipe."""
        try:
            resumed_recipe(self.folder, self.recipe)
        except ContsegError:
            return False
        return True

    @property
    def finished(self) -> bool:
        return self.run.summary() is not None and self.begun

    @property
    def past_step_0(self) -> bool:
        return (self.folder / "steps" / "00" / "confusion.npz").is_file()


def cells_of(rows: Mapping[str, Row], overrides: Sequence[str], out: Path) -> list[Cell]:
    """All runs of a table: one seed after another, so that a table cut short has as many seeds in every row.

    Raises:
        ContsegError: no such recipe, or a wrong key.
    """
    return [
        Cell(
            row=name,
            seed=seed,
            recipe=read_recipe(row.recipe, [*row.overrides, *overrides, f"training.seed={seed}"]),
            folder=out / name / str(seed),
        )
        for seed in sorted({seed for row in rows.values() for seed in row.seeds})
        for name, row in rows.items()
        if seed in row.seeds
    ]


@dataclass(frozen=True, eq=False)
class Task:
    """A cell that is not finished.

    Args:
        key: of its step 0.
        images: that an epoch of each step sees.
    """

    cell: Cell
    key: str
    images: tuple[int, ...]

    def work(self, shares: bool) -> int:
        """Images to learn from, over all epochs; of later steps alone where step 0 is shared."""
        epochs = self.cell.recipe.training.epochs_of
        return sum(count * epochs(step) for step, count in enumerate(self.images) if step or not shares)

    def done(self, shares: bool) -> int:
        """Images learned from so far, see `work`."""
        lines = self.cell.run.metrics()
        return sum(self.images[line["step"]] for line in lines if line["kind"] == "epoch" and (line["step"] or not shares))


def tasks_of(cells: Sequence[Cell]) -> list[Task]:
    """The cells that are not finished, checked as training would check them.

    Raises:
        ContsegError: a recipe that cannot be trained, or a folder that is in the way.
    """
    tasks = []
    for cell in cells:
        if cell.finished:
            continue
        cell.run.refuse_if_taken(overwrite=True)  # before anything is trained
        job = make_job(cell.recipe, cell.folder, new=not cell.begun)
        tasks.append(Task(cell, job.first_step_key(), tuple(len(step.train) for step in job.scenario)))
    return tasks


def next_task(waiting: Sequence[Task], learning: set[str], cached: Callable[[str], bool]) -> Task | None:
    """The first task whose step 0 is cached, or that nobody else learns just now.

    Args:
        learning: keys of step 0 in the making.
        cached: whether step 0 of a key can be recalled.
    """
    return next((task for task in waiting if task.key not in learning or cached(task.key)), None)


class Watcher:
    """Told how the runs go. All calls are optional."""

    def started(self) -> None:
        """Every run has its folder."""

    def look(self, running: Sequence[Task], waiting: Sequence[Task]) -> None:
        """Several times a second."""

    def ended(self, task: Task, problem: str | None) -> None:
        """A run is finished, or stopped with this problem."""


def train_all(tasks: Sequence[Task], out: Path, workers: int, watcher: Watcher | None = None) -> dict[str, str]:
    """Train every task in a process of its own, `workers` at a time; a run that stops does not stop the others.

    Returns:
        Title and problem of every run that stopped.
    """
    watcher, cache = watcher or Watcher(), (out / "cache").resolve()
    waiting, problems = list(tasks), {}
    running: dict[Task, subprocess.Popen] = {}

    def cached(key: str) -> bool:
        return StepCache(cache, key).filled

    with only_table(out) as lock:
        for task in tasks:
            begin(task.cell)
        try:
            watcher.started()
            while waiting or running:
                for task in [task for task, process in running.items() if process.poll() is not None]:
                    problem = _problem(task.cell, running.pop(task).returncode)
                    if problem:
                        problems[task.cell.title] = problem
                    watcher.ended(task, problem)
                learning = {task.key for task in running if not task.cell.past_step_0}
                task = next_task(waiting, learning, cached) if len(running) < workers else None
                if task:
                    waiting.remove(task)
                    running[task] = _started(task.cell, cache, lock)
                    continue
                watcher.look(list(running), waiting)
                time.sleep(0.2)
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    return problems


def begin(cell: Cell) -> None:
    """A run of this very recipe in the cell's folder; one of another recipe goes. No kill leaves anything in between."""
    if cell.begun:
        return
    cell.run.refuse_if_taken(overwrite=True)
    new, old = (cell.folder.with_name(f"{cell.seed}.{word}") for word in ("new", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    start_run(cell.recipe, new)
    if cell.folder.exists():
        cell.folder.rename(old)
    new.rename(cell.folder)
    shutil.rmtree(old, ignore_errors=True)


def _started(cell: Cell, cache: Path, lock: int) -> subprocess.Popen:
    """A process that trains the cell from where its folder stands."""
    with (cell.folder / ORIGIN).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"commit": commit(), "cpu": cpu_model(), "cores": os.cpu_count()}) + "\n")
    command = [sys.executable, "-m", "benchmarks.table_runs", str(cell.folder), str(cache), str(os.getpid())]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (cell.folder / "log.txt").open("w", encoding="utf-8") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=[lock])


def _problem(cell: Cell, code: int) -> str | None:
    if code == 0 and cell.run.summary():
        return None
    if code < 0:
        return f"killed by signal {-code}"
    said = (cell.folder / "log.txt").read_text(encoding="utf-8").strip().splitlines() or [f"exit code {code}"]
    return said[-1].removeprefix("error: ")


@contextmanager
def only_table(out: Path, patience: float = 30) -> Iterator[int]:
    """A lock on the folder. Its runs hold it too, so that none of them outlives its command unnoticed."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise ContsegError(f"{out}: another command is training there; wait for it, or choose --out") from None
                time.sleep(0.1)
        yield file.fileno()


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def commit() -> str:
    """The last commit that changed the package, and whether it was changed since."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        found, changed = git("log", "-1", "--format=%h", "--", "src"), git("status", "--porcelain", "--", "src")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found or 'unknown'}{' with changes' if changed else ''}"


class _Bound(Reporter):
    """Ends the process when the command that started it is gone: two must never write into one folder."""

    def __init__(self, parent: int):
        self.parent = parent

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        self.evaluated()

    def evaluated(self) -> None:
        if os.getppid() != self.parent:
            os._exit(1)

    def message(self, text: str) -> None:
        print(text, flush=True)


def work(folder: Path, cache: Path, parent: int) -> None:
    """Train the run of a folder to its end."""
    recipe = resumed_recipe(folder)
    train(make_job(recipe, folder, cache=cache), _Bound(parent))


if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    except ContsegError as error:
        sys.exit(f"error: {error}")

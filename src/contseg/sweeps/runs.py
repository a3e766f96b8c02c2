"""The runs of a sweep: each is a job of its own, with a shared step 0, and resumable after a kill.

Several leaders, on one or several machines, may work on a folder. The lock of the folder of a run decides who trains it.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from contseg.children import last_lines
from contseg.engine.cache import StepCache
from contseg.engine.overwrite import require_free
from contseg.errors import ContsegError
from contseg.lock import HeldError, is_owned, owned
from contseg.manifest import Manifest
from contseg.recipes.build import keep_recipe, make_job, resumed_recipe, start_run
from contseg.sweeps.cells import Cell
from contseg.sweeps.failures import Failure, record
from contseg.sweeps.worker import TAKEN

LOG = "log.txt"
"""Output of the processes of a run, in its folder."""
POLL = 0.2
"""Seconds between two looks at the own runs."""
LOOK = 1.0
"""Seconds between two looks at the runs of other leaders."""
MOST_CUTS = 3
"""Times that one leader starts a run again that was killed or interrupted."""
CHANGED_ADVICE = "continue with --accept-changes, replace it with --overwrite, or choose another folder with --out"


@dataclass(frozen=True, eq=False)
class Task:
    """An unfinished cell.

    Args:
        key: cache key of step 0; "" if no step 0 is trained.
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
        return sum(self.images[line["step"]] for line in self.cell.epoch_lines if line["step"] or not shares)


class Job(Protocol):
    """A started run."""

    def poll(self) -> int | None:
        """The exit code of its process; None while it runs."""


class Executor(Protocol):
    """Where runs are trained."""

    def room(self) -> int:
        """Number of runs that can be started now."""

    def start(self, cells: Sequence[Cell]) -> list[Job]:
        """Train the begun runs of some cells."""

    def is_queued(self, cell: Cell) -> bool:
        """Whether an earlier leader left a job for a run, which waits in a queue."""

    def stop(self) -> None:
        """The leader ends."""


class Watcher:
    """Receives the progress of a sweep; this one ignores it. Override the calls that you need."""

    def started(self) -> None:
        """The sweep begins."""

    def progressed(self, running: Sequence[Task]) -> None:
        """Called several times a second.

        Args:
            running: the tasks in work, of this and of other leaders.
        """

    def ended(self, task: Task, problem: str | None) -> None:
        """A run is finished, or failed with this error."""


def tasks_of(cells: Sequence[Cell], overwrite: bool = True, accept_changes: bool = False) -> list[Task]:
    """The unfinished cells, after the checks of training.

    Args:
        overwrite: whether runs of other recipes may be replaced; those without a saved state always are.
        accept_changes: whether runs continue although their recipe changed.

    Raises:
        ContsegError: a recipe cannot be trained, or a folder contains other files or a run of another recipe.
    """
    tasks = []
    for cell in cells:
        if cell.finished:
            continue
        if not is_owned(cell.folder):
            require_free(cell.folder, overwrite=True)
        if not overwrite and cell.has_state:  # others failed before their first saved state
            resumed_recipe(cell.folder, cell.recipe, CHANGED_ADVICE, accept_changes=accept_changes)
        job = make_job(cell.recipe, cell.folder, new=not cell.begun)
        key = "" if job.start_from else job.first_step_key()
        tasks.append(Task(cell, key, tuple(len(step.train) for step in job.scenario)))
    return tasks


def begin(cell: Cell, accept_changes: bool = False) -> None:
    """Create the run of a cell unless it exists; the files of a run of another recipe are deleted.

    Args:
        accept_changes: continue a run of another recipe with that of the cell.

    Raises:
        HeldError: another process works on the run.
    """
    if cell.begun:
        return
    with owned(cell.folder):
        if accept_changes and cell.has_state:
            keep_recipe(cell.run, resumed_recipe(cell.folder, cell.recipe, accept_changes=True))
        elif not cell.begun:
            start_run(cell.recipe, cell.folder, overwrite=True)


State = Literal["waiting", "here", "elsewhere", "ended"]


class Leader:
    """Starts the runs of a sweep, waits for them and for those of other leaders, and continues what was cut off.

    Args:
        tasks: the unfinished runs, in the same order for every leader.
        executor: where runs are trained.
        cache: folder in which runs share step 0.
        accept_changes: see `begin`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        executor: Executor,
        cache: Path,
        watcher: Watcher | None = None,
        accept_changes: bool = False,
    ):
        self.tasks, self.executor, self.watcher, self.cache = tasks, executor, watcher or Watcher(), cache
        self.accept_changes = accept_changes
        self.states: dict[Task, State] = dict.fromkeys(tasks, "waiting")
        self.problems: dict[str, str] = {}
        self._jobs: dict[Task, Job] = {}
        self._cuts = dict.fromkeys(tasks, 0)
        self._old = {task: Failure.of(task.cell.folder) for task in tasks}
        self._replaced = {task for task in tasks if _has_summary(task)}
        self._looked = 0.0

    def lead(self) -> dict[str, str]:
        """Train until every run is finished or failed, here or elsewhere.

        Returns:
            Title and error of every run that failed.
        """
        try:
            self.watcher.started()
            while any(state != "ended" for state in self.states.values()):
                self._collect()
                self._look()
                self._start()
                self.watcher.progressed([task for task, state in self.states.items() if state in ("here", "elsewhere")])
                time.sleep(POLL)
        finally:
            self.executor.stop()
        return self.problems

    def next_task(self, cached: Callable[[str], bool]) -> Task | None:
        """The first waiting run whose step 0 is cached or done, or which trains it for the others that need the same one.

        All leaders choose the same run to train a step 0: the first that is unfinished and still needs it.
        """
        bearers: dict[str, Task] = {}
        for task in self.tasks:
            if self.states[task] != "ended" and task.key not in bearers and not task.cell.past_step_0:
                bearers[task.key] = task
        for task in self.tasks:
            if self.states[task] == "waiting" and (
                not task.key or bearers.get(task.key) in (task, None) or task.cell.past_step_0 or cached(task.key)
            ):
                return task
        return None

    def _collect(self) -> None:
        """Runs of this leader that ended."""
        for task, job in list(self._jobs.items()):
            code = job.poll()
            if code is None:
                continue
            del self._jobs[task]
            if code == 0 and _has_summary(task):
                self._end(task)
            elif code == TAKEN:
                self.states[task] = "elsewhere"
            elif (code < 0 or code > 128) and self._cuts[task] < MOST_CUTS:
                self._cuts[task] += 1  # a signal: the run continues from its last state
                self.states[task] = "waiting"
            else:
                self._end(task, _problem(task.cell, code))

    def _look(self) -> None:
        """Runs of other leaders."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        for task, state in self.states.items():
            if state in ("waiting", "elsewhere"):
                self._look_at(task)

    def _look_at(self, task: Task) -> None:
        folder = task.cell.folder
        if is_owned(folder) or self.executor.is_queued(task.cell):  # first, as an owner finishes a run before it leaves
            self.states[task] = "elsewhere"
        elif _has_summary(task) and task not in self._replaced:
            self._end(task)
        elif (failure := Failure.of(folder)) and failure != self._old[task]:
            self._end(task, failure.error)
        else:
            self.states[task] = "waiting"

    def _start(self) -> None:
        """Fill the room of the executor."""
        chosen: list[Task] = []
        while len(chosen) < self.executor.room() and (task := self.next_task(self._is_cached)):
            self._look_at(task)
            if self.states[task] != "waiting":
                continue
            try:
                begin(task.cell, self.accept_changes)
                Manifest(task.cell.folder).record(task.cell.folder / LOG, grows=True)
                self.states[task] = "here"
                chosen.append(task)
            except HeldError:
                self.states[task] = "elsewhere"
            except (ContsegError, OSError) as error:
                self._end(task, str(error))
        if chosen:
            self._jobs |= zip(chosen, self.executor.start([task.cell for task in chosen]), strict=True)

    def _is_cached(self, key: str) -> bool:
        return StepCache(self.cache, key).filled

    def _end(self, task: Task, problem: str | None = None) -> None:
        self.states[task] = "ended"
        if problem:
            self.problems[task.cell.title] = problem
        self.watcher.ended(task, problem)


def _has_summary(task: Task) -> bool:
    return (task.cell.folder / "summary.json").is_file()


def _problem(cell: Cell, code: int) -> str:
    """Why the process of a run ended; recorded for other leaders, if the process itself could not."""
    if failure := Failure.of(cell.folder):
        return failure.error
    if code < 0 or code > 128:
        problem = f"killed {MOST_CUTS + 1} times, last by signal {-code if code < 0 else code - 128}"
    else:
        problem = "\n  ".join([f"exit code {code}, output in {cell.folder / LOG}:", *last_lines(cell.folder / LOG)])
    with suppress(HeldError), owned(cell.folder):
        record(cell.run, problem)
    return problem

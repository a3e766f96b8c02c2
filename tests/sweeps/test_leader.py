"""Which run is started when: leaders with an executor that trains nothing, on folders that look like runs."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from contseg.engine.cache import FILES
from contseg.engine.run import Run
from contseg.lock import OF_RUN, owned
from contseg.recipes.read import read_recipe
from contseg.sweeps import runs
from contseg.sweeps.cells import Cell
from contseg.sweeps.failures import Failure, forget, record
from contseg.sweeps.local import places
from contseg.sweeps.runs import MOST_CUTS, Leader, Task, Watcher
from contseg.sweeps.worker import TAKEN

RECIPE = read_recipe("digits/mib_5-1")


class Pretending:
    """An executor whose runs end with the exit codes of a list, by row, and are finished if the code is 0."""

    def __init__(self, places: int, **codes: list[int]):
        self.places, self.codes, self.started, self.stopped = places, codes, [], False
        self.busy = 0

    def room(self):
        return self.places - self.busy

    def is_queued(self, cell):
        return False

    def start(self, cells):
        return [self.start_one(cell) for cell in cells]

    def start_one(self, cell: Cell):
        self.started.append(cell.row)
        self.busy += 1
        return Pretended(self, cell, self.codes.get(cell.row, [0]).pop(0) if self.codes.get(cell.row) else 0)

    def stop(self):
        self.stopped = True


class Pretended:
    def __init__(self, executor: Pretending, cell: Cell, code: int):
        self.executor, self.cell, self.code = executor, cell, code

    def poll(self):
        self.executor.busy -= 1
        if self.code == 0:
            cell_is_finished(self.cell)
        return self.code


def cell_is_finished(cell: Cell) -> None:
    step_0_is_done(cell)
    cell.run.write_text("summary.json", "{}")


def step_0_is_done(cell: Cell) -> None:
    cell.run.step_folder(0).joinpath("confusion.npz").touch()


def is_cached(cache: Path, key: str) -> None:
    (cache / key).mkdir(parents=True)
    for name in FILES:
        (cache / key / name).touch()


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(runs, "POLL", 0.01)
    monkeypatch.setattr(runs, "LOOK", 0.0)


@pytest.fixture
def make(tmp_path):
    """Tasks by name and key of step 0; the folders are shared by all leaders of a test."""

    def made(**keys: str) -> list[Task]:
        return [
            Task(Cell(name, name, 0, "natural", RECIPE, tmp_path / name / "0"), key, (10, 10)) for name, key in keys.items()
        ]

    return made


def next_of(tasks, cache, **states: str) -> str | None:
    leader = Leader(tasks, Pretending(0), cache)
    for task in tasks:
        leader.states[task] = states.get(task.cell.row, "waiting")
    found = leader.next_task(lambda key: all((cache / key / name).is_file() for name in FILES))
    return found and found.cell.row


def test_the_first_run_that_needs_a_step_0_trains_it_and_others_wait(make, tmp_path):
    tasks = make(a="x", b="x", c="y")
    assert next_of(tasks, tmp_path) == "a"
    assert next_of(tasks, tmp_path, a="here") == "c"
    assert next_of(tasks, tmp_path, a="elsewhere") == "c"  # another leader trains it
    assert next_of(tasks, tmp_path, a="here", c="here") is None


def test_a_run_whose_step_0_is_cached_waits_for_nobody(make, tmp_path):
    tasks = make(a="x", b="y")
    is_cached(tmp_path, "x")
    assert next_of([*tasks, *make(c="x")], tmp_path, a="here", b="here") == "c"


def test_the_next_run_trains_step_0_if_the_first_one_failed_or_could_not_store_it(make, tmp_path):
    tasks = make(a="x", b="x")
    assert next_of(tasks, tmp_path, a="ended") == "b"
    step_0_is_done(tasks[0].cell)
    assert next_of(tasks, tmp_path, a="here") == "b"


def test_a_run_that_is_past_step_0_goes_on_although_another_one_trains_it(make, tmp_path):
    tasks = make(a="x", b="x")
    step_0_is_done(tasks[1].cell)
    assert next_of(tasks, tmp_path, a="here") == "b"


def test_runs_without_a_step_0_to_train_start_at_once(make, tmp_path):
    assert next_of(make(a="", b="", c=""), tmp_path, a="here", b="here") == "c"


def test_every_run_is_trained_once_and_their_room_is_kept(make, tmp_path):
    executor = Pretending(2)
    assert Leader(make(a="x", b="x", c="y"), executor, tmp_path / "cache").lead() == {}
    assert sorted(executor.started) == ["a", "b", "c"]
    assert executor.stopped


def test_a_failed_run_stops_no_other_and_its_error_is_reported(make, tmp_path):
    tasks, ended = make(a="x", b="x", c="y"), []

    class Ended(Watcher):
        def ended(self, task, problem):
            ended.append((task.cell.row, problem))

    log = tasks[0].cell.folder / "log.txt"

    class Failing(Pretending):
        def start_one(self, cell):
            if cell.row == "a":
                log.write_text("Traceback ...\nImportError: no module named torch\n")
            return super().start_one(cell)

    problems = Leader(tasks, Failing(1, a=[1]), tmp_path / "cache", Ended()).lead()
    assert problems == {"a, seed 0": f"exit code 1, output in {log}:\n  Traceback ...\n  ImportError: no module named torch"}
    assert [row for row, problem in ended if problem is None] == ["b", "c"]
    assert Failure.of(tasks[0].cell.folder).error == problems["a, seed 0"]  # for other leaders


@pytest.mark.parametrize("code", [-9, -15, 143])
def test_a_run_that_was_killed_goes_on_but_not_for_ever(make, tmp_path, code):
    executor = Pretending(1, a=[code] * MOST_CUTS)
    assert Leader(make(a="x"), executor, tmp_path / "cache").lead() == {}
    again = Pretending(1, b=[code] * 99)
    problems = Leader(make(b="x"), again, tmp_path / "cache").lead()
    assert len(again.started) == MOST_CUTS + 1
    assert problems["b, seed 0"].startswith(f"killed {MOST_CUTS + 1} times, last by signal {abs(code) % 128}")


def test_a_run_that_another_leader_trains_is_waited_for_and_not_started(make, tmp_path):
    tasks = make(a="x", b="y")
    executor, seen = Pretending(2), []

    class Other(Watcher):
        def progressed(self, running):
            seen.append([task.cell.row for task in running])
            if len(seen) == 3:
                cell_is_finished(tasks[0].cell)
                other.__exit__(None, None, None)

    other = owned(tasks[0].cell.folder)
    other.__enter__()
    assert Leader(tasks, executor, tmp_path / "cache", Other()).lead() == {}
    assert executor.started == ["b"]
    assert all("a" in rows for rows in seen[:3])


def test_a_run_is_taken_over_from_a_leader_that_ended(make, tmp_path):
    tasks = make(a="x")
    runs.begin(tasks[0].cell)
    owner = {"host": "another", "process": 1, "since": "yesterday"}
    lock = tasks[0].cell.folder / OF_RUN
    lock.write_text(json.dumps(owner))
    os.utime(lock, (time.time() - 3600,) * 2)
    executor = Pretending(1)
    assert Leader(tasks, executor, tmp_path / "cache").lead() == {}
    assert executor.started == ["a"]


def test_a_run_that_another_leader_took_first_is_tried_again_when_it_is_free(make, tmp_path):
    executor = Pretending(1, a=[TAKEN])
    assert Leader(make(a="x"), executor, tmp_path / "cache").lead() == {}
    assert executor.started == ["a", "a"]


def test_a_failure_at_another_leader_is_reported_and_not_repeated(make, tmp_path):
    tasks = make(a="x", b="x")
    runs.begin(tasks[0].cell)
    record(tasks[0].cell.run, "an old failure, of an earlier start")
    executor = Pretending(1)
    leader = Leader(tasks, executor, tmp_path / "cache")
    record(tasks[0].cell.run, "no images")
    assert leader.lead() == {"a, seed 0": "no images"}
    assert executor.started == ["b"]  # which trains step 0 now
    assert Leader(tasks[:1], again := Pretending(1), tmp_path / "cache").lead() == {}
    assert again.started == ["a"]  # repeating the command tries it again


def test_a_failure_is_forgotten_when_the_run_is_started_again(tmp_path):
    run = Run(tmp_path)
    record(run, "no images")
    found = Failure.of(tmp_path)
    assert found.error == "no images"
    record(run, "no images")
    assert Failure.of(tmp_path) != found
    forget(run)
    assert Failure.of(tmp_path) is None


def test_a_run_that_cannot_begin_is_a_failure(make, tmp_path):
    tasks = make(a="x", b="y")
    tasks[0].cell.folder.mkdir(parents=True)
    (tasks[0].cell.folder / "letter.txt").write_text("dear")
    problems = Leader(tasks, Pretending(2), tmp_path / "cache").lead()
    assert "contains no run" in problems["a, seed 0"]
    assert (tasks[0].cell.folder / "letter.txt").is_file()


def test_accepted_changes_keep_what_was_trained(make, tmp_path):
    (task,) = make(a="x")
    runs.begin(task.cell)
    task.cell.run.state_path(0).parent.mkdir(parents=True)
    task.cell.run.state_path(0).touch()
    changed = replace(task.cell, recipe=read_recipe("digits/mib_5-1", ["training.lr=0.5"]))
    runs.begin(changed, accept_changes=True)
    assert changed.begun
    assert changed.run.last_begun() == 0


def test_places_are_gpus_or_shares_of_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("contseg.sweeps.local.cores", lambda: 8)
    assert places([], 2) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert places([], None) == [{"OMP_NUM_THREADS": "1"}] * 8
    assert places([], 1, devices=2) == [{"OMP_NUM_THREADS": "4"}]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(["3", "5"], 3)] == ["3", "5", "3"]
    assert [place["OMP_NUM_THREADS"] for place in places(["3", "5"], None)] == ["4", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert places([], 2) == [{"OMP_NUM_THREADS": "1"}] * 2

"""Sweeps as jobs of SLURM, with stand-ins for its commands."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from contseg import children
from contseg.errors import ContsegError
from contseg.sweeps import preemptible, slurm
from contseg.sweeps.cells import Cell
from contseg.sweeps.origin import ORIGIN
from contseg.sweeps.preemptible import Work
from contseg.sweeps.runs import Leader, Watcher, tasks_of
from contseg.sweeps.slurm import JOB, SlurmExecutor, minutes, options_of, ranks_of, submitit_executor
from contseg.sweeps.sweep import Sweep
from tests.conftest import TINY
from tests.engine.processes import linux, wait_for
from tests.engine.runs import lines, same, weights
from tests.sweeps import fake_slurm
from tests.sweeps.forked import lead

pytest.importorskip("submitit")
RECIPES = ["digits/finetune_5-1", "digits/mib_5-1", "digits/plop_5-1"]
SMALL = [*TINY, "scenario.split=5-5", "training.epochs=2", "training.batch=10"]
OPTIONS = {"partition": "gpu", "time": 60}


@pytest.mark.parametrize("text", ["", "long", "1:2:3:4", "-1", "1-", "1:", "9" * 30])
def test_a_time_that_slurm_does_not_have_is_an_error(text):
    with pytest.raises(ContsegError, match="--slurm: time="):
        minutes(text)


@pytest.mark.parametrize("texts", [["gpu"], ["=1"], ["partition="], ["partition=gpu"], []])
def test_options_are_settings_with_a_time(texts):
    with pytest.raises(ContsegError, match="--slurm: "):
        options_of(texts)


@pytest.mark.parametrize("missing", [["squeue"], ["sbatch", "sacct", "scontrol"]], ids=len)
def test_all_commands_that_are_missing_are_listed(tmp_path, monkeypatch, missing):
    fake_slurm.install(tmp_path, monkeypatch)
    for name in missing:
        (tmp_path / "commands" / name).unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    with pytest.raises(ContsegError, match=f"--on slurm: {', '.join(missing)}: not found on the PATH"):
        SlurmExecutor([], tmp_path, tmp_path, OPTIONS)


def cells_of(folder: Path, *overrides: str, seeds: int = 1) -> list[Cell]:
    return Sweep(recipes=RECIPES, seeds=seeds, overrides=[*SMALL, *overrides]).cells(folder)


def test_a_run_on_several_nodes_has_a_task_per_rank(tmp_path):
    assert ranks_of(cells_of(tmp_path)) == {"nodes": 1, "ntasks_per_node": 1}
    assert ranks_of(cells_of(tmp_path, "training.devices=4")) == {"nodes": 1, "ntasks_per_node": 1}
    large = cells_of(tmp_path, "training.nodes=2", "training.devices=4")
    assert ranks_of(large) == {"nodes": 2, "ntasks_per_node": 4}
    with pytest.raises(ContsegError, match=r"the runs differ in training\.nodes"):
        ranks_of([*large, *cells_of(tmp_path)])


def test_an_error_of_sbatch_is_one_line(tmp_path, monkeypatch):
    states = fake_slurm.install(tmp_path, monkeypatch)
    (states / "refuse").write_text("gpu")
    executor = SlurmExecutor([], tmp_path / "out", tmp_path / "out" / "cache", OPTIONS)
    with pytest.raises(ContsegError, match=r"--on slurm: sbatch refused the jobs .*invalid partition specified: gpu"):
        executor.start(cells_of(tmp_path / "out")[:1])


def test_a_job_that_an_earlier_leader_submitted_is_not_submitted_again(tmp_path, monkeypatch):
    states = fake_slurm.install(tmp_path, monkeypatch)
    executor = SlurmExecutor([], tmp_path / "out", tmp_path / "out" / "cache", OPTIONS)
    cell, other, _ = cells_of(tmp_path / "out")
    cell.folder.mkdir(parents=True)
    (cell.folder / JOB).write_text("7_2\n")
    assert not executor.is_queued(cell)
    (states / "7_2.state").write_text("RUNNING")
    monkeypatch.setattr(slurm, "QUEUE", 0.0)
    assert executor.is_queued(cell)
    assert not executor.is_queued(other)


def start(folder: Path) -> subprocess.Popen:
    words = [*RECIPES, *SMALL, "--seeds", "2", "--orders", "2", "--jobs", "2", "--out", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "contseg", "sweep", *words, "--on", "slurm", "--slurm", "partition=gpu,time=1:00:00"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@linux
def test_jobs_are_arrays_that_continue_after_preemption_kills_and_new_leaders(tmp_path, monkeypatch):
    states, folder = fake_slurm.install(tmp_path, monkeypatch), tmp_path / "sweep"
    leader = start(folder)
    wait_for(lambda: list(folder.glob(f"*/*/{ORIGIN}")), leader)  # a job works on its run
    preempted = (next(iter(folder.glob(f"*/*/{ORIGIN}"))).parent / JOB).read_text().strip()
    subprocess.run(["scancel", preempted, "--signal", "USR2"], check=True)  # as SLURM does before it ends a job
    leader.send_signal(signal.SIGKILL)
    leader.communicate()
    leader = start(folder)
    for _ in range(3):
        time.sleep(2)
        for worker in _processes("contseg.sweeps.worker", str(folder))[:1]:
            os.kill(worker, signal.SIGKILL)
    printed, errors = leader.communicate(timeout=1800)
    assert leader.returncode == 0, printed + errors
    assert (states / "scontrol.log").read_text() == f"requeue {preempted}\n"  # once, for the one job that was preempted
    text = (states / "101.sh").read_text()
    assert "#SBATCH --partition=gpu" in text
    assert "#SBATCH --time=60" in text
    assert "#SBATCH --array=0-1%2" in text  # the two runs that train a step 0 first
    whole, sweep = tmp_path / "whole", Sweep.read(folder)
    sweep.write(whole)
    assert lead(whole).wait() == 0
    for mine, theirs in zip(sweep.cells(folder), sweep.cells(whole), strict=True):
        assert mine.finished
        assert lines(mine.run) == lines(theirs.run)
        assert same(weights(mine.run), weights(theirs.run))


def _processes(module: str, folder: str) -> list[int]:
    """The processes of a module that work below a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if module in words[:4] and any(word.startswith(folder) for word in words):
            found.append(int(place.name))
    return found


def test_a_signal_before_the_worker_has_a_process_is_kept_until_it_can_be_requeued(tmp_path, monkeypatch):
    work, requeued = Work(["sleep", "60"], tmp_path / "log.txt"), []

    def signalled(*given, **environment):
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)  # a job has no other thread
        return children.start(*given, **environment)

    monkeypatch.setattr(preemptible, "start", signalled)
    before = signal.signal(signal.SIGUSR2, lambda *_: requeued.append(work.checkpoint().function))  # as that of submitit
    try:
        assert work() == -signal.SIGTERM  # at once
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert [(again.command, again.log) for again in requeued] == [(work.command, work.log)]


@pytest.mark.slow
@linux
def test_two_runs_with_the_local_executor_of_submitit_and_a_job_that_is_preempted_while_it_starts(tmp_path, monkeypatch):
    from submitit import LocalExecutor

    class Preempting(Watcher):
        signalled = 0

        def progressed(self, running):
            if not self.signalled and (jobs := _processes("submitit.core._submit", str(tmp_path))):
                self.signalled = jobs[0]
                os.kill(jobs[0], signal.SIGUSR2)

    monkeypatch.setattr(slurm, "submitit_executor", partial(submitit_executor, kind=LocalExecutor))
    cells, cache = cells_of(tmp_path)[:2], tmp_path / "cache"
    executor = SlurmExecutor(cells, tmp_path, cache, {"timeout_min": 60})
    assert Leader(tasks_of(cells), executor, cache, Preempting()).lead() == {}
    assert all(cell.finished for cell in cells)
    logs = [path.read_text() for path in tmp_path.glob("slurm/*.out")]
    assert sorted(log.count("Requeued job") for log in logs) == [0, 1]


@pytest.mark.slow
@linux
def test_a_job_that_ends_at_once_is_reported_with_its_last_lines(tmp_path, monkeypatch):
    fake_slurm.install(tmp_path, monkeypatch)
    out = tmp_path / "out"
    cells = cells_of(out)[:1]
    executor = SlurmExecutor(cells, out, out / "cache", OPTIONS)
    python = tmp_path / "python"
    python.write_text("#!/bin/bash\necho 'ImportError: no module named torch' >&2\nexit 1\n")
    python.chmod(0o755)
    executor._executor.python = str(python)
    problems = Leader(tasks_of(cells), executor, out / "cache").lead()
    log = cells[0].folder / "log.txt"
    (problem,) = problems.values()
    assert problem.startswith(f"exit code 1, output in {log}:\n  job 101: FAILED\n")
    assert "ImportError: no module named torch" in problem

"""A lock belongs to one process, on one or several machines, and to nobody after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contseg import children, lock
from contseg.errors import ContsegError
from contseg.lock import Lock, held, owned, owned_runs


def of_another(path: Path, *, host: str, process: int, seconds_ago: float = 0.0) -> None:
    """A lock file as another process left it."""
    path.write_text(json.dumps({"host": host, "process": process, "since": "2026-01-01 10:00:00"}))
    touched = time.time() - seconds_ago
    os.utime(path, (touched, touched))


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


class TestAnotherMachine:
    def test_with_a_heartbeat_owns_the_folder(self, tmp_path):
        of_another(tmp_path / "run.lock", host="elsewhere", process=7)
        with pytest.raises(
            ContsegError, match=r"already running there \(process 7 on elsewhere since 2026-01-01 10:00:00\)"
        ):
            held(tmp_path / "run.lock", "here: a run").__enter__()
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]

    def test_without_one_does_not(self, tmp_path):
        of_another(tmp_path / "run.lock", host="elsewhere", process=7, seconds_ago=2 * lock.STALE)
        with held(tmp_path / "run.lock", "here: a run"):
            assert json.loads((tmp_path / "run.lock").read_text())["process"] == os.getpid()
        assert not list(tmp_path.iterdir())

    def test_sees_a_heartbeat(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lock, "BEAT", 0.05)
        with held(tmp_path / "run.lock", "here: a run"):
            os.utime(tmp_path / "run.lock", (0, 0))
            deadline = time.monotonic() + 60
            while not (tmp_path / "run.lock").stat().st_mtime:
                assert time.monotonic() < deadline
                time.sleep(0.02)


class TestAFileSystemWithoutLocks:
    @pytest.fixture(autouse=True)
    def without(self, monkeypatch):
        monkeypatch.setattr(lock, "_locked", lambda file: None)

    def test_the_owner_is_known_by_its_process(self, tmp_path):
        of_another(tmp_path / "run.lock", host=socket.gethostname(), process=os.getppid())
        with pytest.raises(ContsegError, match=f"process {os.getppid()} on"):
            held(tmp_path / "run.lock", "here: a run").__enter__()

    def test_an_owner_that_has_ended_is_replaced(self, tmp_path, dead):
        of_another(tmp_path / "run.lock", host=socket.gethostname(), process=dead)
        with held(tmp_path / "run.lock", "here: a run"):
            pass

    def test_a_new_file_belongs_to_the_process_that_made_it(self, tmp_path):
        with held(tmp_path / "run.lock", "here: a run"), pytest.raises(ContsegError, match=f"process {os.getpid()} on"):
            held(tmp_path / "run.lock", "here: a run").__enter__()


HOLDER = """
import os, sys, time
from pathlib import Path
from contseg.lock import owned
with owned(Path(sys.argv[1])):
    if sys.argv[2] == "forked" and not os.fork():
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="forks and sends signals")
@pytest.mark.parametrize("kind", ["alone", "forked"])
def test_the_lock_of_a_killed_process_is_free_also_while_its_readers_live(tmp_path, kind):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ContsegError, match=f"process {process.pid} on"):
        owned(tmp_path / "run").__enter__()
    process.kill()
    process.wait()
    try:
        with owned(tmp_path / "run"):
            assert len(owned_runs()) == 1
    finally:
        if kind == "forked":
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
    assert owned_runs() == []


def test_folders_that_were_made_for_a_lock_are_removed_with_it(tmp_path):
    with owned(tmp_path / "runs" / "a"):
        assert (tmp_path / "runs" / "a" / "run.lock").is_file()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_no_lock(tmp_path, largest_file):
    largest_file(0)
    path = tmp_path / "runs" / "a" / "run.lock"
    with pytest.raises(ContsegError, match=r"run\.lock: cannot be written \(File too large"):
        held(path, "a test").__enter__()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_a_child_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "GRACE", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    with held(tmp_path / "a.lock", "a test") as lock_:
        assert isinstance(lock_, Lock)
        process = children.start([sys.executable, "-c", code], tmp_path / "log.txt", lock_)
        while "deaf" not in (tmp_path / "log.txt").read_text():
            time.sleep(0.02)
        children.end([process])
    assert process.returncode == -signal.SIGKILL

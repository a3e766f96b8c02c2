"""A rank that is lost, or does not come, ends the run with one line that names it, and leaves no process."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from contseg.engine.run import Run
from contseg.engine.waits import explained, waiting_for
from contseg.errors import ContsegError
from tests.engine.processes import alive, linux, wait_for
from tests.engine.test_interruption import LONG, PROCESS, begun

TWO = (LONG, "training.devices=2")
LATE = "did not come within training.timeout to"


def children(process: subprocess.Popen) -> list[int]:
    """The ranks that a process spawned, in order."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def started(rank: int, port: str, folder: Path, mark: str, *options: str) -> subprocess.Popen:
    """One rank of two, as a launcher on another machine would start it."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "contseg", "train", "digits/mib_5-1", *PROCESS, *TWO, *options, "--out", str(folder)]
    environment = os.environ | place | {"MASTER_PORT": port, "OMP_NUM_THREADS": "1", "CONTSEG_TEST_MARK": mark}
    return subprocess.Popen(
        [*command, "--no-cache"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^sizes differ$"), waiting_for("update 3"):
        raise RuntimeError("sizes differ")


def test_the_innermost_wait_is_named():
    named = pytest.raises(ContsegError, match=r"^a rank has ended before update 3; ")
    with named, waiting_for("step 1"), waiting_for("update 3"):
        raise RuntimeError("gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:9")


def test_ranks_that_do_not_start_are_counted():
    assert explained("the start", "Timed out after 5 seconds waiting for clients. 2/4 clients joined.").startswith("2 of 4")
    assert explained("the start", "The client socket has timed out after 4000ms").startswith("rank 0 did not come")


@linux
@pytest.mark.slow
class TestARank:
    """Rank 0 is the one in which the others store their messages."""

    def test_that_is_killed_is_named(self, tmp_path):
        process = begun(tmp_path / "run", *TWO, mark=str(tmp_path))
        wait_for((tmp_path / "run" / "steps" / "00" / "state.pt").is_file, process)
        os.kill(children(process)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        last = errors.splitlines()[-1]  # a library may print a line when the other rank ends
        assert re.fullmatch(r"error: training.devices: rank 0 was killed by signal 9 before training was .*", last)
        assert "Traceback" not in errors
        assert not alive(str(tmp_path))
        assert Run(tmp_path / "run").load_state(0)

    def test_that_hangs_is_named_and_ended(self, tmp_path):
        process = begun(tmp_path / "run", *TWO, "training.timeout=20", mark=str(tmp_path))
        os.kill(children(process)[0], signal.SIGSTOP)
        _, errors = process.communicate(timeout=240)  # PyTorch waits 30 s before it kills
        assert process.returncode == 2
        assert re.fullmatch(rf"error: rank 0 {LATE} (update .* of )?step 0; .*\n", errors)
        assert not alive(str(tmp_path))

    @pytest.mark.parametrize("rank", [0, 1])
    def test_of_a_launcher_is_named_by_the_others(self, tmp_path, rank):
        port = free_port()
        both = [started(one, port, tmp_path / "run", str(tmp_path)) for one in (0, 1)]
        other = both[1 - rank]
        try:
            wait_for(lambda: Run(tmp_path / "run").metrics(), other)
            both[rank].kill()
            _, errors = other.communicate(timeout=120)
        finally:
            both[rank].communicate()
        assert other.returncode == 2
        last = errors.splitlines()[-1]
        assert re.fullmatch(rf"error: rank {rank} has ended before (update .* of )?step 0; .*", last)
        assert "Traceback" not in errors
        assert not alive(str(tmp_path))

    def test_that_is_never_started_ends_the_wait_of_the_others(self, tmp_path):
        alone = started(0, free_port(), tmp_path / "run", str(tmp_path), "training.timeout=3")
        _, errors = alone.communicate(timeout=120)
        assert alone.returncode == 2
        assert errors.splitlines()[-1].startswith(f"error: 1 of 2 ranks {LATE} the start; ")
        assert "Traceback" not in errors

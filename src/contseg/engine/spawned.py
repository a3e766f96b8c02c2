"""Ranks that this process spawns: their function, their signals, and the error when one dies."""

import logging
import multiprocessing
import os
import pickle
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from contseg.engine.waits import explained
from contseg.errors import ContsegError
from contseg.interruption import Interrupted, catching, deferred, end_with
from contseg.lock import owned_runs

if TYPE_CHECKING:  # it takes a second to import
    from lightning_fabric import Fabric

# Fabric logs every process to stderr. At import, so that it also applies to spawned ranks.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # logs every rank that it ends
warnings.filterwarnings("ignore", message=".*all_gather is deprecated", category=FutureWarning)

LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
UNGUARDED = 97
"""Exit code of a rank that started to train while it imported its parent's script."""
FIX = 'put the code of the script below `if __name__ == "__main__":`'


def refuse_unguarded() -> None:
    """Exit if this is a spawned rank that runs its parent's script again because the script has no main guard.

    A spawned process imports the script that started it. The parent turns the exit code into an error message.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(UNGUARDED)


@dataclass
class _Ended:
    """Returned by a rank that was interrupted."""

    number: int


class _Call:
    """A function and its arguments, pickled to a file.

    A file, because a child that dies while importing its parent's script does not read its pipe, and a parent that writes
    more than the pipe's capacity would block forever.
    """

    def __init__(self, path: Path, receivers: list[Connection]):
        self.path, self.receivers = path, receivers
        self.locks = owned_runs()  # a rank that outlives a killed parent still saves

    def __call__(self, fabric: "Fabric") -> Any:
        with catching():
            try:
                end_with(lambda: _received(self.receivers[fabric.local_rank]))
                function, arguments = pickle.loads(self.path.read_bytes())
                return function(fabric, *arguments)
            except Interrupted as stop:
                return _Ended(stop.number)


def _received(connection: Connection) -> int | None:
    """Wait for a signal from the parent; None if the parent has ended."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


def run_spawned(fabric: "Fabric", function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run `function(fabric, *arguments)` on spawned ranks, and return the result of rank 0. No rank outlives the call.

    Raises:
        ContsegError: raised on a rank, or a rank ended without a result.
        Interrupted: a signal ended the ranks, each after its current update.
    """
    refuse_unguarded()
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(fabric.strategy.num_processes)]  # type: ignore[attr-defined]
    forwarded: list[int] = []

    def forward(number: int) -> None:
        forwarded.append(number)
        for _, sender in pipes:
            with suppress(OSError):
                sender.send(number)

    quiet = fabric.device.type == "cpu"  # of GPUs, the log of NCCL is the only reason for its end
    with tempfile.TemporaryDirectory() as folder, _logging(quiet), _no_child_left(), deferred(forward):
        path = Path(folder) / "call"
        path.write_bytes(pickle.dumps((function, arguments)))
        try:
            result = fabric.launch(_Call(path, [receiver for receiver, _ in pipes]))
        except (ProcessRaisedException, ProcessExitedException, BrokenPipeError) as error:
            if forwarded:
                raise Interrupted(forwarded[0]) from None
            raise _explained(error) from None
        finally:
            for pipe in pipes:
                for end in pipe:
                    end.close()
    if isinstance(result, _Ended):
        raise Interrupted(result.number)
    return result


def _explained(error: Exception) -> Exception:
    """The error for a rank that ended: one line, or the rank's own error with its traceback if it is no ContsegError."""
    if isinstance(error, ProcessRaisedException):
        found = re.search(r"^contseg\.errors\.ContsegError: (.*)$", str(error), re.MULTILINE)
        if found:
            return ContsegError(found.group(1))
        lost = re.search(r"^torch\.distributed\.Dist\w+Error: (.*)$", str(error), re.MULTILINE)  # before the first call
        return ContsegError(explained("the start", lost.group(1))) if lost else error
    code = error.exit_code if isinstance(error, ProcessExitedException) else UNGUARDED
    if code == UNGUARDED:
        return ContsegError(f"training.devices: every rank imports the training script; {FIX}")
    rank = f"rank {error.error_index}" if isinstance(error, ProcessExitedException) else "a rank"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if code == -signal.SIGABRT:
        how += " (as NCCL does after training.timeout, if another rank does not come)"
    return ContsegError(
        f"training.devices: {rank} {how} before training was finished; saved files are kept, and the reason may be above"
    )


@contextmanager
def _logging(quiet: bool) -> Iterator[None]:
    """Start processes without the log of PyTorch's C++ code, which prints stacks when a rank does not answer."""
    before = os.environ.get(LOG_LEVEL)
    if quiet and before is None:
        os.environ[LOG_LEVEL] = "FATAL"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(LOG_LEVEL, None)


@contextmanager
def _no_child_left() -> Iterator[None]:
    """Kill the processes that were started inside the block and still run at its end."""
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
            child.join()

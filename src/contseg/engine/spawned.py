"""Ranks that this process starts: what they are given, how they are ended, and the error when one dies."""

import logging
import multiprocessing
import pickle
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from contseg.errors import ContsegError
from contseg.interruption import Interrupted, catching, deferred, end_with

# Fabric announces every process on stderr; our own progress says what matters. At import, for spawned ranks too.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*all_gather is deprecated", category=FutureWarning)

UNGUARDED = 97
"""Exit code of a rank that met the training while it imported the script of its parent."""
FIX = 'put what the script does below `if __name__ == "__main__":`'


def refuse_unguarded() -> None:
    """End a rank that runs the script of its parent again, because the script has no main guard; else do nothing.

    A spawned process imports the script that started it. The parent sees the exit code and says what to do.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(UNGUARDED)


@dataclass
class _Ended:
    """What a rank returns that was interrupted."""

    number: int


class _Call:
    """A function and its arguments, as little as can be: they are in a file.

    A child that dies while it imports the script of its parent reads nothing of what the parent writes to it, and a parent
    with much to write would wait for ever.
    """

    def __init__(self, path: Path, ears: list[Connection]):
        self.path, self.ears = path, ears

    def __call__(self, fabric: Fabric) -> Any:
        with catching():
            try:
                end_with(lambda: _heard(self.ears[fabric.local_rank]))
                function, arguments = pickle.loads(self.path.read_bytes())
                return function(fabric, *arguments)
            except Interrupted as stop:
                return _Ended(stop.number)


def _heard(ear: Connection) -> int | None:
    """The signal that the parent passes on; None when the parent has ended."""
    try:
        return ear.recv()
    except (EOFError, OSError):
        return None


def run_spawned(fabric: Fabric, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run `function(fabric, *arguments)` on ranks of their own, and return what rank 0 returns. None of them outlives it.

    Raises:
        ContsegError: what a rank raised; or a rank ended without a word.
        Interrupted: a signal ended the ranks, each after its batch.
    """
    refuse_unguarded()
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(fabric.strategy.num_processes)]  # type: ignore[attr-defined]
    told: list[int] = []

    def tell(number: int) -> None:
        told.append(number)
        for _, mouth in pipes:
            with suppress(OSError):
                mouth.send(number)

    with tempfile.TemporaryDirectory() as folder, _no_child_left(), deferred(tell):
        path = Path(folder) / "call"
        path.write_bytes(pickle.dumps((function, arguments)))
        try:
            result = fabric.launch(_Call(path, [ear for ear, _ in pipes]))
        except (ProcessRaisedException, ProcessExitedException, BrokenPipeError) as error:
            if told:
                raise Interrupted(told[0]) from None
            raise _explained(error) from None
        finally:
            for pipe in pipes:
                for end in pipe:
                    end.close()
    if isinstance(result, _Ended):
        raise Interrupted(result.number)
    return result


def _explained(error: Exception) -> Exception:
    """One line for what ended a rank; its own error, traceback included, where that is no mistake of the user's."""
    if isinstance(error, ProcessRaisedException):
        found = re.search(r"^contseg\.errors\.ContsegError: (.*)$", str(error), re.MULTILINE)
        return ContsegError(found.group(1)) if found else error
    code = error.exit_code if isinstance(error, ProcessExitedException) else UNGUARDED
    if code == UNGUARDED:
        return ContsegError(f"training.devices: every rank imports the script that trains; {FIX}")
    rank = f"rank {error.error_index}" if isinstance(error, ProcessExitedException) else "a rank"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return ContsegError(
        f"training.devices: {rank} {how} before the training was done; what was saved is kept, see above for its reason"
    )


@contextmanager
def _no_child_left() -> Iterator[None]:
    """End the processes that were started inside and still run, however the block ends."""
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
            child.join()

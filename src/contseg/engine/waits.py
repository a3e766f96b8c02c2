"""Waits of a rank for the others: a rank that does not come ends the run with one line that names it."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from contseg.errors import ContsegError
from contseg.interruption import requested

ANSWERS_WITHIN = 5.0
"""Seconds after a failed wait in which the other ranks report that they wait too; those that do not are named."""


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Turn a failed exchange with the other ranks into an error that names the missing ones. Nested, the innermost counts.

    Args:
        what: what the ranks do together in the block, for the error.

    Raises:
        ContsegError: other ranks have ended, or did not come within `training.timeout`.
    """
    try:
        yield
    except RuntimeError as error:
        if not failed_exchange(error):
            raise
        raise ContsegError(explained(what, str(error))) from None


def failed_exchange(error: RuntimeError) -> bool:
    """Whether an error of PyTorch is about an exchange between ranks.

    Example:
        >>> failed_exchange(RuntimeError("gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:9"))
        True
    """
    return dist.is_available() and (isinstance(error, dist.DistError) or "gloo" in str(error))


def explained(what: str, reason: str) -> str:
    """The one line for a failed exchange.

    Args:
        what: as in `waiting_for`.
        reason: the error of PyTorch.

    Example:
        >>> explained("the start", "Timed out after 5 seconds waiting for clients. 3/4 clients joined.")
        '1 of 4 ranks did not come within training.timeout to the start; see the messages of all ranks, then resume'
    """
    problem = "did not come within training.timeout to" if "timed out" in reason.lower() else "has ended before"
    return f"{_missing(reason)} {problem} {what}; see the messages of all ranks, then resume"


def _missing(reason: str) -> str:
    """The ranks that are missing, in words."""
    if dist.is_initialized():
        return " and ".join(f"rank {rank}" for rank in _silent()) or "a rank"
    joined = re.search(r"(\d+)/(\d+) clients joined", reason)
    if joined:
        return f"{int(joined[2]) - int(joined[1])} of {joined[2]} ranks"
    return "rank 0" if "client socket" in reason else "a rank"


def _silent() -> list[int]:
    """The other ranks that do not report within `ANSWERS_WITHIN` that they wait too."""
    rank, gone = dist.get_rank(), threading.Event()
    missing = set(range(dist.get_world_size())) - {rank}

    def exchange() -> None:
        store = dist.distributed_c10d._get_default_store()
        try:
            store.set(f"contseg/waits/{rank}", "")
            while missing and not gone.is_set():
                missing.difference_update([other for other in missing if store.check([f"contseg/waits/{other}"])])
                gone.wait(0.1)
        except RuntimeError:
            pass  # the store ends with rank 0

    # a thread, as a store whose process is stopped does not answer
    thread = threading.Thread(target=exchange, daemon=True)
    thread.start()
    end = time.monotonic() + ANSWERS_WITHIN
    while thread.is_alive() and time.monotonic() < end and requested() is None:
        thread.join(0.1)
    gone.set()
    return sorted(missing)

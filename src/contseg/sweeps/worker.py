"""The process of one run of a sweep: `python -m contseg.sweeps.worker RUN CACHE [--accept-changes]`.

It owns the folder of the run while it works, and ends with its standard input.
"""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from contseg.engine.ranks import joined_rank, owned_by_rank_0
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError
from contseg.interruption import Interrupted, catching, end_with_input
from contseg.lock import HeldError
from contseg.manifest import Manifest
from contseg.recipes.build import make_job, resumed_recipe
from contseg.report.log import TextLog
from contseg.sweeps.failures import forget, record
from contseg.sweeps.origin import ORIGIN, origin

TAKEN = 75
"""Exit code: another process works on the run."""
ACCEPT = "--accept-changes"


def worker_command(folder: Path, cache: Path, accept_changes: bool = False) -> list[str]:
    """The command of the process of a run."""
    return [sys.executable, "-m", "contseg.sweeps.worker", str(folder), str(cache), *([ACCEPT] if accept_changes else [])]


def work(folder: Path, cache: Path, accept_changes: bool = False) -> None:
    """Train or resume the run in a folder, unless it is finished.

    Args:
        cache: folder in which runs share step 0.
        accept_changes: see `train`.

    Raises:
        HeldError: another process works on the run.
        ContsegError: the run failed; the reason is recorded in its folder.
    """
    with owned_by_rank_0(folder):
        run = Run(folder)
        if _is_finished(run) and not accept_changes:
            return
        if not joined_rank():
            forget(run)
            _record_origin(folder)
        try:
            job = make_job(resumed_recipe(folder), folder, cache=cache)
            train(job, TextLog(_write), accept_changes=accept_changes)
        except Exception as error:  # whatever it is; recorded for the sweep and raised again
            if not joined_rank():
                record(run, str(error) if isinstance(error, ContsegError) else f"{type(error).__name__}: {error}")
            raise


def _is_finished(run: Run) -> bool:
    try:
        return run.summary() is not None
    except ContsegError:  # damaged, and written again by `train`
        return False


def _record_origin(folder: Path) -> None:
    _write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()} on {socket.gethostname()}")
    Manifest(folder).record(folder / ORIGIN, grows=True)
    with (folder / ORIGIN).open("a", encoding="utf-8") as file:
        file.write(json.dumps(origin()) + "\n")


def _write(line: str) -> None:
    with suppress(OSError):  # a full disk under a log must not end the training
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def main(folder: Path, cache: Path, accept_changes: bool) -> int:
    """Work, and return the exit code: 0, `TAKEN`, 2 for an error of the input, 128 + N after signal N."""
    with catching():
        end_with_input()
        try:
            work(folder, cache, accept_changes)
        except HeldError:
            return TAKEN
        except ContsegError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        except Interrupted as stop:
            return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), ACCEPT in sys.argv[3:]))

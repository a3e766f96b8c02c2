"""Standard output for programs: a JSON object per line, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from contseg.cli.console import console
from contseg.cli.failures import error_line
from contseg.interruption import Interrupted
from contseg.report.log import JsonLog


def print_json(line: str) -> None:
    """Print a line at once. A full disk or a closed pipe must not end the training."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        console.on_broken_pipe()
    except OSError:
        pass


@contextmanager
def json_log() -> Iterator[JsonLog]:
    """Within the block, only this log writes to standard output; an error or a signal is its last object."""
    log, quiet = JsonLog(print_json), console.quiet
    console.quiet = True
    try:
        yield log
    except Interrupted as stop:
        log.add("interrupted", message=str(stop), resume=stop.resume, exit_code=stop.exit_code)
        raise
    except Exception as error:  # whatever it is; raised again
        line = error_line(error)
        with suppress(Exception):
            log.add("error", message=line or f"{type(error).__name__}: {error}", exit_code=2 if line else 1)
        raise
    finally:
        console.quiet = quiet

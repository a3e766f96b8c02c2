"""How a command ends that fails or is interrupted: one line on standard error, and an exit code."""

import errno
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from contseg.errors import ContsegError, system_error, visible
from contseg.interruption import Interrupted

OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory")
"""In the errors of PyTorch."""
UsageError: Any = typer.BadParameter.__base__  # of click, or of the copy of click in typer


class Interruptible(TyperGroup):
    """Commands that a signal ends with one line and the exit code of shells, 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Invoke the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            interrupted = _without_frames(stop)
        # outside of `except`, so that what the exception's frames hold (readers of images) is released
        _end(interrupted)


def _without_frames(stop: KeyboardInterrupt) -> Interrupted:
    return Interrupted(stop.number, stop.resume) if isinstance(stop, Interrupted) else Interrupted(2)


def _end(interrupted: Interrupted) -> NoReturn:
    print(interrupted, file=sys.stderr)
    sys.exit(interrupted.exit_code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Within the block, an error of the input or of the system is printed as one line and exits with code 2.

    So does a signal before the command begins, with its own exit code.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        _end(_without_frames(stop))
    except Exception as error:  # those that are faults of the program are raised again
        if type(error).__name__ == "NoArgsIsHelpError":  # for which the help has been printed
            sys.exit(2)
        if (line := error_line(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def error_line(error: Exception) -> str | None:
    """The line for an error of the input or of the system; None for a fault of the program.

    Example:
        >>> error_line(ContsegError("recipe.yaml: not found")), error_line(KeyError("x"))
        ('recipe.yaml: not found', None)
    """
    known = _explained(error)
    return None if known is None else visible(str(known)).replace("\n", "\\n")


def _explained(error: Exception) -> ContsegError | None:
    if isinstance(error, ContsegError):
        return error
    if isinstance(error, UsageError):
        return usage_error(error)
    if isinstance(error, OSError):
        return system_error(error)
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError) and error.__context__.errno == errno.ELOOP:
        return system_error(error.__context__)  # Path.resolve of Python 3.11 and 3.12
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
        return ContsegError("not enough memory; lower training.batch, data.crop, or the width of the network")
    return None


def require_no_empty(words: Sequence[str]) -> None:
    """Raise ContsegError if a word of a command or the value of an option is empty, such as a variable that is not set.

    As a path, it would be the current folder.

    Example:
        >>> require_no_empty(["predict", "runs/a", "photos", "--out", ""])
        Traceback (most recent call last):
        contseg.errors.ContsegError: --out: the value is empty; give one, or remove --out
    """
    for before, word in pairwise(["contseg", *words]):
        if not word or re.fullmatch("--[a-z-]+=", word):
            option = word[:-1] or before
            if option.startswith("-"):
                raise ContsegError(f"{option}: the value is empty; give one, or remove {option}")
            raise ContsegError(f"{option}: the word after it is empty; give one, or remove it")


def usage_error(error: Any) -> ContsegError:
    """An error in options or arguments, in one line that ends with the command for help."""
    text = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    return ContsegError(f"{text}; see: {error.ctx.command_path if error.ctx else 'contseg'} --help")

"""Digests of the code, so that a step 0 trained by another version is not reused."""

import inspect
import marshal
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import torch

from contseg.digest import sha256

PACKAGE = __name__.partition(".")[0]
APART = ("cli", "dryrun", "recipes", "report", "sweeps")
"""Rooms that do not influence weights."""


@cache
def package_digest() -> str:
    """SHA-256 over PyTorch's version and the sources of all rooms that can influence weights."""
    return sha256(torch.__version__, *_sources(files(PACKAGE), APART))


def _sources(folder: Traversable, apart: tuple[str, ...] = ()) -> Iterator[bytes]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name not in apart:
                yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield f"{entry.name}\n".encode() + entry.read_bytes()


def is_foreign(kind: type) -> bool:
    """Whether a class is defined outside the package.

    Example:
        >>> is_foreign(Path)
        True
    """
    return kind.__module__.partition(".")[0] != PACKAGE


def foreign_digest(kind: type) -> str:
    """SHA-256 over a class outside the package and its bases: their names and source files (byte code, if there is no
    file); "" for a class of the package.
    """
    if not is_foreign(kind):
        return ""
    own = [one for one in kind.__mro__ if is_foreign(one) and one.__module__ not in ("builtins", "abc", "typing")]
    # without the module, whose name differs in a spawned rank
    return sha256(*(f"{one.__qualname__}\n".encode() + _source(one) for one in own))


def _source(kind: type) -> bytes:
    try:
        return Path(inspect.getfile(kind)).read_bytes()
    except (OSError, TypeError):
        pass
    functions = {name: value for name, value in vars(kind).items() if inspect.isfunction(value)}
    return b"".join(name.encode() + marshal.dumps(functions[name].__code__) for name in sorted(functions))

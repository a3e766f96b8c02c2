"""What every hostile input must lead to: a result, or one line within bounded memory; nothing is executed."""

import resource
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from contseg.errors import ContsegError

HEADROOM = 3 * 2**29
"""Bytes of address space that a case may take on top of what the tests already have."""


@contextmanager
def bounded_memory():
    """Within the block, memory beyond `HEADROOM` cannot be allocated."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The error of a call in one line, or "" if it succeeds; any other exception fails the test."""
    with bounded_memory():
        try:
            call(*arguments, **options)
        except ContsegError as error:
            message = str(error)
        else:
            return ""
    assert message
    assert "\n" not in message
    assert len(message) < 1000
    return message

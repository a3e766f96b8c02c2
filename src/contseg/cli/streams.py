"""Standard output and error: printing must never end a command."""

import sys
import warnings
from typing import Any

from contseg.errors import visible


def write_anything() -> None:
    """Write characters that a stream cannot encode (a log in cp1252) as `\\u9053` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not the streams of a test or a notebook
            stream.reconfigure(errors="backslashreplace")


def warn_in_one_line() -> None:
    """Print warnings of Python as one line, without the place in the code."""

    def line(message: Warning | str, *place: Any) -> str:
        return f"warning: {visible(' '.join(str(message).split()))}\n"

    warnings.formatwarning = line  # type: ignore[assignment]  # whatever the place is

"""Standard output and error: printing must never end a command."""

import sys


def write_anything() -> None:
    """Write characters that a stream cannot encode (a log in cp1252) as `\\u9053` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not the streams of a test or a notebook
            stream.reconfigure(errors="backslashreplace")

"""Standard output and error: what is printed must never end a command."""

import sys


def write_anything() -> None:
    """Write characters that the encoding of a stream lacks (a log in cp1252) as `\\u9053` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not the streams of a test or a notebook
            stream.reconfigure(errors="backslashreplace")

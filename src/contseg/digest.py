"""SHA-256 of values and files."""

import hashlib
from pathlib import Path


def sha256(*parts: str | bytes) -> str:
    """SHA-256 of all parts in order, in hexadecimal; texts in UTF-8.

    Example:
        >>> sha256("a", b"b") == sha256("ab"), sha256("ab")[:8]
        (True, 'fb8e20fc')
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def file_sha256(path: Path | str) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A lock that lets one process at a time work in a folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from contseg.errors import ContsegError


@dataclass(frozen=True)
class Lock:
    """A file lock, which the system releases when the process ends or is killed.

    Args:
        file: descriptor of the open file.
    """

    file: int

    @property
    def kept_by_children(self) -> tuple[int, ...]:
        """The descriptors that a child inherits to share the lock (`subprocess.Popen(pass_fds=...)`); empty on Windows."""
        return () if os.name == "nt" else (self.file,)


@contextmanager
def held(path: Path, what: str, patience: float = 0.0) -> Iterator[Lock]:
    """Hold a file lock inside the block; the file is created, and deleted at the end.

    Args:
        path: the file.
        what: the protected work, for the error: "runs/demo: a demo".
        patience: seconds to wait if another process holds the lock.

    Raises:
        ContsegError: another process holds the lock (names its id and when it began).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "demo.lock"
        >>> with held(path, "runs/demo: a demo"):
        ...     path.is_file()
        True
        >>> path.exists()
        False
    """
    made, deadline = not path.parent.exists(), time.monotonic() + patience
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _locked(file):
            owner = path.read_text(encoding="utf-8").strip() or "another process"
            os.close(file)
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ContsegError(
                f"{what} is already running there ({owner}); wait for it to end, or choose another folder with --out"
            )
        if _still_there(path, file):  # the previous owner may have deleted the file since it was opened
            break
        os.close(file)
    os.truncate(file, 0)
    os.write(file, f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
    try:
        yield Lock(file)
    finally:
        if os.name != "nt":  # Windows does not delete open files
            path.unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):
            if os.name == "nt":
                path.unlink(missing_ok=True)
            if made:  # and it is empty
                path.parent.rmdir()


def _still_there(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _locked(file: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(file, 1 << 20, os.SEEK_SET)  # beyond the text, as Windows does not read locked bytes
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

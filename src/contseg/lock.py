"""A lock that lets one process at a time work in a folder, also where machines share the folder."""

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contseg.atomic import writable
from contseg.errors import ContsegError

BEAT = 10.0
"""Seconds between two heartbeats of an owner."""
STALE = 60.0
"""Seconds without a heartbeat after which an owner on another machine has ended."""
PATIENCE = 90.0
"""Seconds to wait for the children of a killed owner, which are still starting or saving."""
OF_RUN = "run.lock"
"""Lock in the folder of a run."""

_runs: dict[Path, "Lock"] = {}
"""Locks of the runs that this process owns."""


@dataclass(frozen=True)
class Lock:
    """A file lock, which the system releases when the process and its children end or are killed.

    Args:
        file: descriptor of the open file.
    """

    file: int

    @property
    def kept_by_children(self) -> tuple[int, ...]:
        """The descriptors that a child inherits to share the lock (`subprocess.Popen(pass_fds=...)`); empty on Windows."""
        return () if os.name == "nt" else (self.file,)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled for a spawned process, which then shares the lock; not on Windows."""
        if os.name == "nt":
            return Lock, (-1,)
        from multiprocessing.reduction import DupFd

        return _shared, (DupFd(self.file),)


def _shared(copy: Any) -> Lock:
    return Lock(copy.detach())


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock, as written in the file."""

    host: str
    process: int
    since: str

    @classmethod
    def of(cls, path: Path) -> "Owner | None":
        """The owner in a file; None if it has none, because it is new."""
        try:
            if not path.is_file():  # reading a pipe would wait
                return None
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether the process is or was on this machine."""
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Whether the process was on this machine and is gone."""
        if not self.is_here or os.name == "nt":
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except (OSError, TypeError, OverflowError):  # the last two: a damaged file
            pass
        return False


@contextmanager
def held(path: Path, what: str) -> Iterator[Lock]:
    """Hold a file lock inside the block; the file is created, and deleted at the end.

    The lock of an owner that was killed is taken over: at once on the same machine, after `STALE` seconds on another one.

    Args:
        path: the file.
        what: the protected work, for the error: "runs/demo: a demo".

    Raises:
        ContsegError: another process holds the lock (names its machine, its id and when it began), or the disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "demo.lock"
        >>> with held(path, "runs/demo: a demo"):
        ...     path.is_file()
        True
        >>> path.exists()
        False
    """
    made = [folder for folder in path.parents if not folder.exists()]
    deadline = time.monotonic() + PATIENCE
    path.parent.mkdir(parents=True, exist_ok=True)
    while (file := _taken(path)) is None:
        owner = Owner.of(path)
        if owner and owner.has_ended and time.monotonic() < deadline:  # its children hold the lock
            time.sleep(0.1)
            continue
        raise ContsegError(
            f"{what} is already running there ({owner or 'another process'}); wait for it to end, or choose another folder"
            " with --out"
        )
    owner = Owner(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
    ended = threading.Event()
    try:
        with writable(path):
            os.truncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, json.dumps(vars(owner)).encode())
        threading.Thread(target=_beat, args=(path, file, ended), daemon=True).start()
        yield Lock(file)
    finally:
        ended.set()
        if os.name != "nt" and _is_still_there(path, file):  # Windows does not delete open files
            path.unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):
            if os.name == "nt":
                path.unlink(missing_ok=True)
            for folder in made:  # unless they are in use
                folder.rmdir()


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own the folder of a run inside the block: no other process trains, resumes or overwrites it. Blocks may be nested.

    Raises:
        ContsegError: another process owns the folder.
    """
    path = folder.resolve() / OF_RUN
    if path in _runs:
        yield
        return
    with held(path, f"{folder}: a training") as lock:
        _runs[path] = lock
        try:
            yield
        finally:
            del _runs[path]


def owned_runs() -> list[Lock]:
    """The locks of the runs that this process owns, to share them with spawned ranks."""
    return list(_runs.values())


def _taken(path: Path) -> int | None:
    """The descriptor of the locked file, or None if another process holds the lock."""
    while True:
        file, made = _opened(path)
        locked, owner = _locked(file), Owner.of(path)
        has_ended = owner and (owner.has_ended or (locked and owner.is_here))
        if locked is False or not (made or has_ended or not _is_beating(path)):
            os.close(file)
            return None
        if _is_still_there(path, file):  # the previous owner may have deleted the file since it was opened
            return file
        os.close(file)


def _opened(path: Path) -> tuple[int, bool]:
    """The descriptor of the lock file, and whether this process made the file, which also decides without file locks."""
    while True:
        with suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with suppress(FileNotFoundError):  # deleted since
            return os.open(path, os.O_RDWR), False


def _beat(path: Path, file: int, ended: threading.Event) -> None:
    """Update the time of the lock file until the block ends."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            if _is_still_there(path, file):
                os.utime(path)


def _is_beating(path: Path) -> bool:
    """Whether a lock file was touched in the last `STALE` seconds, by the clock of its file system."""
    with suppress(FileNotFoundError), tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as probe:
        return Path(probe.name).stat().st_mtime - path.stat().st_mtime < STALE
    return False  # deleted since


def _is_still_there(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _locked(file: int) -> bool | None:
    """Whether the system locked a file for this process; None if the file system has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(file, 1 << 20, os.SEEK_SET)  # beyond the text, as Windows does not read locked bytes
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return False if os.name == "nt" else None
    return True


def _forget_in_child() -> None:
    """Release the locks in a forked worker, which may outlive a killed owner by some seconds."""
    for lock in _runs.values():
        with suppress(OSError):
            os.close(lock.file)
    _runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)

"""Write files and folders atomically: they appear complete or not at all, also after a power failure."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from contseg.errors import ContsegError

PARTIAL = ".contseg-partial"
"""End of the name of an unfinished file or folder; no file of a user has it."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ONLY_OF_WRITING = {*FULL, errno.EROFS, errno.EIO}
"""Errors of the system that only writing can cause."""
CUT_OFF = "the write was cut off"


class UnwritableError(ContsegError):
    """A file or folder cannot be written: the disk is full or read-only, or a permission is missing."""


@contextmanager
def writable(path: Path, written: Path | None = None) -> Iterator[None]:
    """Raise UnwritableError if the system refuses what the block writes; other errors pass.

    Args:
        path: the file or folder, for the error.
        written: what the block writes to, whose size is reported; default: `path`.

    Raises:
        UnwritableError: names the path, the reason, and the space that is needed and free.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> path.touch()
        >>> with writable(path / "b"):
        ...     (path / "b").mkdir()
        Traceback (most recent call last):
        contseg.atomic.UnwritableError: .../a.txt/b: cannot be written (Not a directory; ... free); use another folder
    """
    try:
        yield
    except ContsegError:
        raise
    except Exception as error:  # besides OSError: safetensors and PyTorch raise their own kinds on a full disk
        reason = _refusal(error, path.parent)
        if reason is None:
            raise
        advice = "use another folder"
        if reason in (*map(os.strerror, FULL), CUT_OFF):
            advice = f"free some space, or {advice}"
        raise UnwritableError(f"{path}: cannot be written ({reason}; {_space(path, written or path)}); {advice}") from None


@contextmanager
def atomic_file(path: Path, shared: bool = False) -> Iterator[Path]:
    """Write a file atomically, with the mode that the umask gives.

    The block writes to the yielded path, `NAME.contseg-partial` in the same folder. After the block it replaces `path`;
    after an exception it is deleted, and `path` is unchanged. After a kill it remains, until the file is written again.

    Args:
        shared: several processes may write the file at the same time; each gets its own partial file.

    Raises:
        UnwritableError: the disk is full or read-only, or a permission is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with atomic_file(path) as partial:
        ...     _ = partial.write_text("1 2 3")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('1 2 3', 1)
    """
    partial = _partial(path, shared)
    try:
        with writable(path, partial):
            partial.unlink(missing_ok=True)
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            if partial.stat().st_mode != mode:  # safetensors writes private files
                partial.chmod(mode)
            _sync(partial)
            os.replace(partial, path)
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Write a text file atomically, in UTF-8; see `atomic_file`."""
    with atomic_file(path, shared) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, shared: bool = False) -> Iterator[Path]:
    """Fill a new folder atomically; like `atomic_file`, the block writes to a folder of another name.

    If another process has created `path` in the meantime, its folder is kept.

    Raises:
        UnwritableError: the disk is full or read-only, or a permission is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "images"
        >>> with atomic_folder(path) as partial:
        ...     _ = (partial / "a.txt").write_text("a")
        >>> [file.name for file in path.iterdir()], path.parent.joinpath("images.contseg-partial").exists()
        (['a.txt'], False)
    """
    partial = _partial(path, shared)
    try:
        with writable(path, partial):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            _sync_tree(partial)
            try:
                partial.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path, shared: bool) -> Path:
    # not the process id: it is not unique where machines or containers share a folder
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL}" if shared else f"{path.name}{PARTIAL}")


def _sync(path: Path, flags: int = os.O_RDWR) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder permanent, where the system can."""
    with suppress(OSError):  # Windows opens no folders, and some network file systems do not sync them
        _sync(folder, os.O_RDONLY)


def _sync_tree(folder: Path) -> None:
    """Sync all files below a folder; in parallel, as a disk writes many small files at once."""
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(_sync, [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]))


def _refusal(error: BaseException, folder: Path) -> str | None:
    """Why the system refused to write below a folder; None for other errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            refused = cause.errno in ONLY_OF_WRITING or (cause.filename is not None and _are_nested(cause.filename, folder))
            return os.strerror(cause.errno) if refused else None
        cause = cause.__cause__ or cause.__context__
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors
        return os.strerror(int(found[1]))
    if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):  # PyTorch, which drops the error of the system
        return CUT_OFF
    return None


def _are_nested(name: str | bytes, folder: Path) -> bool:
    """Whether a path is in a folder, or the folder in the path."""
    one, other = Path(os.fsdecode(name)).absolute(), folder.absolute()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _space(path: Path, written: Path) -> str:
    """The space that a write needs and that is free, and whether there are inodes left."""
    needed = max(_bytes(path), _bytes(written))
    place = next((folder for folder in path.absolute().parents if os.path.isdir(folder)), Path("/"))
    text = f"{size_text(shutil.disk_usage(place).free)} free"
    if needed:
        text = f"at least {size_text(needed)} needed, {text}"
    if os.name != "nt" and (system := os.statvfs(place)).f_files and not system.f_favail:
        text += ", no inodes free"
    return text


def _bytes(path: Path) -> int:
    """The size of a file, or of all files below a folder; 0 if it is missing."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def size_text(count: int) -> str:
    """A number of bytes, with a unit.

    Example:
        >>> size_text(999), size_text(1_230_000), size_text(45_000_000_000)
        ('999 B', '1.2 MB', '45 GB')
    """
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if unit != "B" and size < 10 else f"{size:.0f} {unit}"

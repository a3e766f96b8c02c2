"""Write files and folders atomically: they appear complete or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path, shared: bool = False) -> Iterator[Path]:
    """Write a file atomically, with the mode that the umask gives.

    The block writes to the yielded path, `NAME.partial` in the same folder. After the block it replaces `path`; after an
    exception it is deleted, and `path` is unchanged. After a kill it remains, until the file is written again.

    Args:
        shared: several processes may write the file at the same time; each gets its own partial file.

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
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        if partial.stat().st_mode != mode:  # safetensors writes private files
            partial.chmod(mode)
        os.replace(partial, path)
    except BaseException:
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

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "images"
        >>> with atomic_folder(path) as partial:
        ...     _ = (partial / "a.txt").write_text("a")
        >>> [file.name for file in path.iterdir()], path.parent.joinpath("images.partial").exists()
        (['a.txt'], False)
    """
    partial = _partial(path, shared)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path, shared: bool) -> Path:
    # not the process id: it is not unique where machines or containers share a folder
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial" if shared else f"{path.name}.partial")

"""The cache folder: `$CONTSEG_CACHE`, or `contseg` in the user's cache folder."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from contseg.atomic import UnwritableError


def cache_folder(kind: str) -> Path:
    """The folder for one kind of cached file (`presence`, `datasets`, `steps`), created if missing.

    Everything in it can be deleted at any time; it is computed again. If the disk is full or read-only, the folder may be
    missing.
    """
    base = os.environ.get("CONTSEG_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contseg"
    folder = (Path(base) if base else home) / kind
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def made_folder(kind: str, name: str, make: Callable[[Path], None], root: Path | str | None = None) -> tuple[Path, str]:
    """A folder of the cache, which `make` writes if it is missing.

    If the cache cannot be written, the folder is temporary and is deleted when the process ends.

    Args:
        root: a folder of the user in place of the cache.

    Returns:
        the folder, and a line on why it is temporary, or "".
    """
    folder = (Path(root) if root else cache_folder(kind)) / name
    if folder.is_dir():
        return folder, ""
    try:
        make(folder)
    except UnwritableError as error:
        if root:
            raise
        temporary = Path(tempfile.mkdtemp(prefix="contseg-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        make(temporary / name)
        return temporary / name, f"{error}; used until the end of this process: {temporary}"
    return folder, ""

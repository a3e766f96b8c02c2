"""The cache folder: `$CONTSEG_CACHE`, or `contseg` in the user's cache folder."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The folder for one kind of cached file (`presence`, `datasets`, `steps`), created if missing.

    Everything in it can be deleted at any time; it is computed again.
    """
    base = os.environ.get("CONTSEG_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contseg"
    folder = (Path(base) if base else home) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder

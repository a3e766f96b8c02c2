"""Files inside installed packages."""

import importlib.util
from pathlib import Path


def packaged_file(module: str, pattern: str) -> Path | None:
    """The first file in the folder of a package whose name matches, or None. The package is not imported.

    Args:
        module: the import name; a package above it is imported if there is one.
        pattern: of `Path.glob`.

    Example:
        >>> packaged_file("contseg", "packaged.p?").name, packaged_file("contseg.absent.part", "*")
        ('packaged.py', None)
    """
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    return next((path for folder in folders for path in sorted(Path(folder).glob(pattern))), None)

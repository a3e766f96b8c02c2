"""How a labelled folder is read, as set on the command line with the keys of a recipe."""

from collections.abc import Sequence
from typing import Any

from contseg.errors import ContsegError
from contseg.settings import key_value

FOLDER_KEYS, OPTION = ("data.follow_links", "data.max_pixels"), "data.options."
"""Keys for every folder, and the beginning of the keys of a dataset's options."""


def folder_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Options of `open_labelled` from overrides with the keys of a recipe.

    Raises:
        ContsegError: an override is not KEY=VALUE, or has another key.

    Example:
        >>> folder_options(["data.follow_links=true", "data.options.background=none"])
        {'follow_links': True, 'background': 'none'}
    """
    found: dict[str, Any] = {}
    for override in overrides:
        key, value = key_value(override, "data.follow_links=true", "override ")
        if key not in FOLDER_KEYS and not key.startswith(OPTION):
            keys = f"{', '.join(FOLDER_KEYS)} and {OPTION}KEY"
            raise ContsegError(f"override '{override}': of a labelled folder, only {keys} can be set")
        found[key.removeprefix(OPTION).removeprefix("data.")] = value
    return found

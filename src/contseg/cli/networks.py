"""Options of a network from the command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from contseg.errors import ContsegError
from contseg.models.options import NetworkOptions, laid_over
from contseg.recipes.read import parse_recipe
from contseg.settings import key_value


def network_of(base: Mapping[str, Any], changes: Sequence[str]) -> NetworkOptions:
    """The options of a network.

    Args:
        base: keys as under `network` in a recipe.
        changes: KEY=VALUE with such keys.

    Raises:
        ContsegError: a key or a value is invalid, or the options contradict each other (names which).

    Example:
        >>> network_of({"backbone": "resnet18", "head": "fcn"}, ["head.width=8"]).head.width
        8
    """
    network: dict[str, Any] = {}
    for change in changes:
        key, value = key_value(change, "head.width=512 or head.idrnet.refine=after")
        *folders, last = key.removeprefix("network.").split(".")
        place: Any = network
        for folder in folders:
            place = place.setdefault(folder, {}) if isinstance(place, dict) else None
        if not last or not isinstance(place, dict):
            raise ContsegError(f"'{change}': write KEY=VALUE, such as head.width=512 or head.idrnet.refine=after")
        place[last] = value
    content = {"name": "network", "data": {"dataset": "folder"}, "network": laid_over(base, network)}
    try:
        return parse_recipe(content, "options").network
    except ContsegError as error:  # there is no file to name
        raise ContsegError(str(error).removeprefix("options: ")) from None

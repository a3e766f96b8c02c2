"""Options of a part of a network, chosen by name. PyTorch is not imported, so that lists are fast."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from contseg.errors import ContsegError, did_you_mean
from contseg.options import Options
from contseg.plugins import Registry


class PartOptions(Options):
    """Options of every part.

    Class attributes:
        not_shared: keys that a part does not take over from the one that it replaces.

    Attributes:
        name: name of the part.
    """

    not_shared: ClassVar[frozenset[str]] = frozenset()

    name: str


Part = TypeVar("Part", bound=PartOptions)


def chosen(kinds: Registry[type[Part]], default: str, value: Any) -> Any:
    """The options of the chosen part.

    Args:
        kinds: options class of each name.
        default: name to use if the value has none.
        value: a name, a mapping with keys of the part, or its options.

    Raises:
        ValueError: unknown name, or a key that this part lacks; the message suggests the closest match.

    Example:
        >>> class Cube(PartOptions):
        ...     side: int = 1
        >>> bodies = Registry("bodies", "network.body", {"cube": Cube})
        >>> chosen(bodies, "cube", {"side": 2})
        Cube(name='cube', side=2)
        >>> chosen(bodies, "cube", {"sides": 2})
        Traceback (most recent call last):
        ValueError: cube has no key 'sides' (got 2); did you mean 'side'? (known: name, side)
    """
    if isinstance(value, PartOptions):
        return value
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        raise ValueError(f"expected the name or the keys of a {kinds.noun} (got {value!r})")
    name = given.get("name", default)
    if name not in kinds:
        raise ValueError(kinds.unknown(str(name)))
    unknown = [key for key in given if key not in kinds[name].model_fields]
    if unknown:
        raise ValueError(f"{name} has no key '{unknown[0]}' (got {given[unknown[0]]!r}); {_hint(kinds, name, unknown[0])}")
    return kinds[name].model_validate({**given, "name": name})


def require_options(base: type[PartOptions]) -> Callable[[Any], None]:
    """A check for a registry: options of a part are a subclass of `base`.

    Example:
        >>> require_options(PartOptions)(int)
        Traceback (most recent call last):
        contseg.errors.ContsegError: int: options of a part subclass PartOptions; register the options
    """

    def check(part: Any) -> None:
        if not (isinstance(part, type) and issubclass(part, base)):
            name = getattr(part, "__name__", repr(part))
            raise ContsegError(f"{name}: options of a part subclass {base.__name__}; register the options")

    return check


def _hint(kinds: Registry[type[Part]], name: str, key: Any) -> str:
    """The parts that have a key which this one lacks; if there are none, the closest of its own keys."""
    others = [other for other, options in kinds.items() if key in options.model_fields]
    own = did_you_mean(str(key), kinds[name].model_fields)
    return f"it is a key of {', '.join(others)}" if others else own


def shared_keys(kinds: Registry[type[Part]], before: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """The keys of a part that its replacement has too; all keys if it is not replaced, or by a part of the same kind.

    Args:
        before: keys of the replaced part.
        name: name of its replacement, or None.
    """
    by_name: dict[Any, type[Part]] = dict(kinds.items())
    kind, old = (by_name.get(one) if isinstance(one, str) else None for one in (name, before.get("name")))
    if kind is None or kind is old:
        return dict(before)
    return {key: value for key, value in before.items() if key in kind.model_fields and key not in kind.not_shared}

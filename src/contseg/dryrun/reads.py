"""Which fields of options and hyper-parameters are read while something runs."""

import copy
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")

BLANKET_MODULES = ("copy", "dataclasses", "pydantic")
BLANKET_FUNCTIONS = ("__repr__", "__eq__", "__hash__", "first_step_key")
"""Whoever reads from here takes all fields alike, whether they matter or not (`asdict`, `repr`, a key of a cache)."""


class Reads:
    """Watches frozen pydantic models and dataclasses, and notes which of their fields are read, by dotted key.

    A field with keys of its own counts as read with all of them, unless it is watched itself. Code that copies, compares
    or writes an object as a whole does not count.

    Example:
        >>> from contseg.methods.mib import MiB
        >>> from contseg.models.options import NetworkOptions
        >>> reads = Reads()
        >>> network, method = reads.watch(NetworkOptions(head="fcn"), "network"), reads.watch(MiB(), "method")
        >>> network.head, isinstance(method, MiB), network.model_dump()["fpn_width"]
        ('fcn', True, 512)
        >>> reads.unread(["network.head", "network.fpn_width", "method.name", "method.distillation"])
        ['network.fpn_width', 'method.distillation']
    """

    def __init__(self) -> None:
        self._watched: set[str] = set()
        self._read: set[str] = set()

    def watch(self, value: T, prefix: str) -> T:
        """An equal object of a class of its own, whose reads are noted.

        Args:
            prefix: of the keys of its fields.

        Raises:
            TypeError: it is neither a pydantic model nor a dataclass.
        """
        kind: Any = type(value)
        keys = {name: f"{prefix}.{name}" for name in _fields(value)}
        read = self._read

        def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807 (becomes that method)
            if name in keys and not _takes_all(sys._getframe(1)):
                read.add(keys[name])
            return kind.__getattribute__(self, name)

        watched = copy.copy(value)
        watching = type(kind)(kind.__name__, (kind,), {"__getattribute__": __getattribute__, "__module__": kind.__module__})
        object.__setattr__(watched, "__class__", watching)
        self._watched |= set(keys.values())
        return watched

    def unread(self, keys: Iterable[str]) -> list[str]:
        """Those of some keys that lie in a watched field, or are one, which nothing read."""
        return [key for key in keys if (field := self._field_of(key)) is not None and field not in self._read]

    def _field_of(self, key: str) -> str | None:
        """The innermost watched field that a key lies in."""
        parts = key.split(".")
        outwards = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((place for place in outwards if place in self._watched), None)


def _fields(value: Any) -> list[str]:
    if isinstance(value, BaseModel):
        return list(type(value).model_fields)
    if is_dataclass(value):
        return [field.name for field in fields(value) if field.init]
    raise TypeError(f"{type(value).__name__} is neither a pydantic model nor a dataclass")


def _takes_all(caller: Any) -> bool:
    module = caller.f_globals.get("__name__", "").split(".")[0]
    return module in BLANKET_MODULES or caller.f_code.co_name in BLANKET_FUNCTIONS

"""Where two nested settings differ, such as two recipes."""

from collections.abc import Iterator, Mapping
from typing import Any

ORDER = ("network", "backbone_weights", "start_from", "method", "scenario", "data", "evaluation", "training")
"""Sections of a recipe, in the order of their influence on results."""


def flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings.

    Example:
        >>> dict(flat({"training": {"lr": 0.1}, "name": "mine"}))
        {'training.lr': 0.1, 'name': 'mine'}
    """
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, content


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys in which two nested mappings differ, with both values; a missing key is None.

    Example:
        >>> differences({"training": {"lr": 0.1, "batch": 2}}, {"training": {"lr": 0.5, "batch": 2}})
        {'training.lr': (0.1, 0.5)}
    """
    left, right = dict(flat(one)), dict(flat(other))
    return {key: (left.get(key), right.get(key)) for key in sorted(left | right) if left.get(key) != right.get(key)}


def differences_text(changed: Mapping[str, tuple[Any, Any]], most: int = 4) -> str:
    """Changed keys with both values in one line, in the order of `ORDER`; beyond `most` keys, without values.

    Example:
        >>> differences_text({"training.lr": (0.1, 0.2), "network.backbone.name": ("resnet101", "resnet18")}, most=1)
        'network.backbone.name was resnet101, is resnet18 (and 1 more: training.lr)'
    """

    def place(key: str) -> int:
        top = key.partition(".")[0]
        return ORDER.index(top) if top in ORDER else len(ORDER)

    keys = sorted(changed, key=lambda key: (place(key), key != "network.backbone.name", key))
    texts = [f"{key} was {before}, is {now}" for key in keys[:most] for before, now in [map(_word, changed[key])]]
    more = f" (and {len(keys) - most} more: {', '.join(keys[most:])})" if len(keys) > most else ""
    return ", ".join(texts) + more


def _word(value: Any) -> Any:
    return "none" if value is None else value

"""Where two recipes differ."""

from collections.abc import Mapping
from typing import Any

from contseg.recipes.read import flat
from contseg.recipes.recipe import Recipe


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Keys in which two recipes differ, with both values.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> one, other = read_recipe("digits/plop_5-1"), read_recipe("digits/plop_5-1", ["training.lr=0.5"])
        >>> differences(one, other)["training.lr"][1]
        0.5
    """
    left, right = dict(flat(one.model_dump(mode="json"))), dict(flat(other.model_dump(mode="json")))
    keys = sorted(left.keys() | right.keys())
    return {key: (left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)}


ORDER = ("network", "backbone_weights", "start_from", "method", "scenario", "data", "evaluation", "training")
"""Sections of a recipe, in the order of their influence on results."""


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

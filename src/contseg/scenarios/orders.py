"""The order in which the classes of a dataset are learned."""

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from contseg.data.classes import ClassTable
from contseg.data.lists import read_list
from contseg.errors import ContsegError, did_you_mean


def class_order(order: str | Sequence[int | str], classes: ClassTable, dataset: str, split: str) -> tuple[int, ...]:
    """All class ids of a table in order of presentation, background (if there is one) first.

    Args:
        order: `natural` (as in the table); the letter of a published order (`b` ... `w`: the shuffled orders of VOC 15-1
            that PLOP introduced); `seed:N`, a seeded shuffle; a list of ids or names; or a file with one per line.
            Lists may omit background, which is always first.
        dataset, split: select the published orders.

    Raises:
        ContsegError: the order is unknown, or does not contain every class exactly once.

    Example:
        >>> table = ClassTable.of(["background", "cat", "dog", "fox"])
        >>> class_order("natural", table, "folder", "1-1"), class_order(["fox", "cat", "dog"], table, "folder", "1-1")
        ((0, 1, 2, 3), (0, 3, 1, 2))
    """
    background = classes.ids[:1] if classes.has_background else ()
    if isinstance(order, str):
        if order == "natural":
            return classes.ids
        if order.startswith("seed:"):
            seed = order.removeprefix("seed:")
            if not seed.isdecimal() or len(seed) > 18:
                raise ContsegError(f"scenario.order: '{order}' needs a number after 'seed:'")
            shuffled = np.random.default_rng(int(seed)).permutation(classes.foreground)
            return (*background, *(int(number) for number in shuffled))
        published = published_orders().get((dataset, split, order))
        if published is not None:
            entries: Sequence[int | str] = published
        elif Path(order).is_file():
            entries = read_list(Path(order))
        else:
            known = [name for (d, s, name) in published_orders() if (d, s) == (dataset, split)]
            raise ContsegError(
                f"scenario.order: '{order}' is neither natural, seed:N, a file, nor a published order of {dataset} {split}"
                f" ({', '.join(known) if known else 'there are none'})"
            )
    else:
        entries = order
    ids = [_id_of(entry, classes) for entry in entries]
    if background and ids and ids[0] != background[0]:
        ids.insert(0, background[0])
    if sorted(ids) != sorted(classes.ids):
        missing = sorted(set(classes.ids) - set(ids))
        twice = sorted({number for number in ids if ids.count(number) > 1})
        raise ContsegError(f"scenario.order: must contain every class once; missing {missing}, repeated {twice}")
    return tuple(ids)


def _id_of(entry: int | str, classes: ClassTable) -> int:
    if isinstance(entry, int) or entry.isdecimal():
        if int(entry) not in classes.ids:
            known = f"{min(classes.ids)} to {max(classes.ids)}"
            raise ContsegError(f"scenario.order: id {entry} is not in the class table; use ids from {known}")
        return int(entry)
    if entry not in classes.names:
        raise ContsegError(
            f"scenario.order: class '{entry}' is not in the class table; {did_you_mean(entry, classes.names)}"
        )
    return classes.ids[classes.index_of(entry)]


@cache
def published_orders() -> dict[tuple[str, str, str], tuple[int, ...]]:
    """Published class orders by (dataset, split, letter)."""
    text = (files("contseg.scenarios") / "class_orders.csv").read_text(encoding="utf-8")
    rows = csv.reader(text.splitlines()[1:])
    return {(row[0], row[1], row[2]): tuple(int(value) for value in row[3:] if value) for row in rows}

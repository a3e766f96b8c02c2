"""The class list of a user's folder: `classes.yaml`, `classes.txt`, `labelmap.txt` (CVAT), and the meaning of id 0."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contseg.data.classes import IGNORE, Background, ClassTable, Colour, voc_palette
from contseg.data.lists import read_list, read_text
from contseg.errors import ContsegError
from contseg.parsing import parse_yaml

FILES = ("classes.yaml", "classes.yml", "classes.txt", "labelmap.txt", "class_names.txt")
CHOICES = ("annotated", "unlabelled", "none")


@dataclass(frozen=True)
class ClassList:
    """The content of a class list.

    Args:
        table: the classes.
        id_of: class id of each mask value; None if masks contain the ids.
        colours: mask value of each colour in the list; empty if it has no colours.
        palette_colours: whether a palette mask is read by its colours instead of its indices (CVAT).
    """

    table: ClassTable
    id_of: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None
    palette_colours: bool = False


@dataclass(frozen=True)
class _Row:
    number: int
    name: str
    colour: Colour | None


def is_background(name: str) -> bool:
    """Whether this is the name of a background class.

    Example:
        >>> [is_background(name) for name in ("Background", "_background_", "bg", "void", "road", "bgr")]
        [True, True, True, True, False, False]
    """
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    return plain in ("background", "bg", *_UNLABELLED)


_UNLABELLED = ("unlabelled", "unlabeled", "unannotated", "void", "ignore", "ignored")


def read_class_list(root: Path, background: Any = None) -> ClassList:
    """Read the classes of a folder from the first of `FILES`; `class_names.txt` is that of `labelme2voc`.

    Args:
        background: the meaning of id 0: `annotated`, `unlabelled` or `none` (true and false mean `annotated` and `none`);
            None: `unlabelled`, if no class has id 0 or its name means so (`unlabelled`, `void`, `ignore`); `annotated`, if
            it has another name of a background.

    Raises:
        ContsegError: the list is missing or invalid, or the meaning of id 0 is unknown.
    """
    found = [root / name for name in FILES if (root / name).is_file()]
    if not found:
        raise ContsegError(f"{root / 'classes.txt'}: not found; list the class names, one per line, background first")
    path = found[0]
    chosen = _chosen(background)
    try:
        if path.name == "labelmap.txt":
            rows = _from_labelmap(path)
        elif path.suffix == ".txt":
            table = ClassTable.of(read_list(path))
            rows = [_Row(number, name, None) for number, name in zip(table.ids, table.names, strict=True)]
        else:
            rows = _from_yaml(path)
        listed = _with_background(rows, chosen, path)
    except ContsegError as error:
        message = str(error)
        raise ContsegError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    return replace(listed, palette_colours=path.name == "labelmap.txt")


def _chosen(background: Any) -> str | None:
    """One of `CHOICES`, or None."""
    if background is None or isinstance(background, bool):
        return {None: None, True: "annotated", False: "none"}[background]
    word = str(background).casefold().replace("unlabeled", "unlabelled")
    if word not in CHOICES:
        raise ContsegError(f"data.options.background: {background!r} is unknown; known: {', '.join(CHOICES)}")
    return word


def _with_background(rows: Sequence[_Row], chosen: str | None, path: Path) -> ClassList:
    """The class table of the rows with this meaning of id 0; None decides by the name of id 0."""
    if chosen == "none":
        return _without(rows)
    first = next((row.name for row in rows if row.number == 0), None)
    if first is None:
        own = "background" if all(row.name != "background" for row in rows) else "not annotated"
        colours = {row.colour for row in rows if row.colour is not None}
        black = (0, 0, 0) if colours and (0, 0, 0) not in colours else None  # how tools draw what has no label
        rows = [_Row(0, own, black), *rows]
    table = _table(rows, "annotated")
    if first is not None and chosen is None and not is_background(first):
        raise ContsegError(
            f"{path}: id 0 is '{first}', which is not the name of a background; if it marks pixels without a label, list it"
            " as 'unlabelled'; otherwise set data.options.background=none (an ordinary class) or annotated (the background)"
        )
    if chosen is None and (first is None or "".join(filter(str.isalnum, first.casefold())) in _UNLABELLED):
        chosen = "unlabelled"
    if chosen == "unlabelled":
        table = replace(table, background="unscored")
    return ClassList(table, colours=_colours(rows))


def _without(rows: Sequence[_Row]) -> ClassList:
    """Every row is a class. If one has id 0, all ids move up by one, as steps by class use 0 for unannotated pixels."""
    if all(row.number for row in rows):
        return ClassList(_table(rows, "none"), colours=_colours(rows))
    moved = {row.number: row.number + 1 + (row.number + 1 >= IGNORE) for row in rows}
    palette = voc_palette()
    shown = [replace(row, number=moved[row.number], colour=row.colour or palette[row.number % 256]) for row in rows]
    return ClassList(_table(shown, "none"), moved, _colours(rows))


def _table(rows: Sequence[_Row], background: Background) -> ClassTable:
    palette = voc_palette()
    return ClassTable(
        tuple(row.name for row in rows),
        tuple(row.number for row in rows),
        tuple(row.colour or palette[row.number % 256] for row in rows),
        background,
    )


def _colours(rows: Sequence[_Row]) -> dict[Colour, int]:
    """Mask values by colour, of the rows with a colour.

    Raises:
        ContsegError: two rows have the same colour.
    """
    values: dict[Colour, int] = {}
    for row in rows:
        if row.colour is not None and values.setdefault(row.colour, row.number) != row.number:
            raise ContsegError(f"the colour {list(row.colour)} is used by id {values[row.colour]} and by id {row.number}")
    return values


def _from_yaml(path: Path) -> list[_Row]:
    content = parse_yaml(read_text(path), str(path))
    if isinstance(content, dict) and set(content) == {"classes"}:
        content = content["classes"]
    if isinstance(content, dict):
        content = [{"id": number, "name": name} for number, name in content.items()]
    try:
        rows = [_Row(_id(row["id"]), str(row["name"]), _colour(row.get("colour", row.get("color")))) for row in content]
        if not rows:
            raise ValueError
    except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError):
        raise ContsegError(f"{path}: expected `0: background`, `1: name`, ... or a list of id, name, colour") from None
    return sorted(rows, key=lambda row: row.number)


def _id(value: Any) -> int:
    """A whole number, also one in quotes.

    Raises:
        ValueError: the value is another number, or none.
    """
    if isinstance(value, float | bool):
        raise ValueError
    return int(value)


def _colour(value: Any) -> Colour | None:
    """RGB.

    Raises:
        ValueError: the value is not a colour.
    """
    if value is None:
        return None
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError
    return red, green, blue


def _from_labelmap(path: Path) -> list[_Row]:
    """Lines `name:red,green,blue:parts:actions`, as CVAT and Datumaro write them, background first."""
    rows = []
    for line in read_list(path):
        if line.startswith("#"):
            continue
        found = re.fullmatch(r"(.+?):([\d, ]+)(:[^:]*){0,2}", line)  # a name may contain a colon
        try:
            rows.append((found[1] if found else "", _colour(found[2].split(",") if found else ())))
        except ValueError:
            raise ContsegError(f"{path}: cannot read '{line}'; expected `name:red,green,blue::`") from None
    rows.sort(key=lambda row: not is_background(row[0]))
    start = int(not any(is_background(name) for name, _ in rows))
    ids = [number for number in range(start, start + len(rows) + 1) if number != IGNORE][: len(rows)]
    return [_Row(number, name, colour) for number, (name, colour) in zip(ids, rows, strict=True)]

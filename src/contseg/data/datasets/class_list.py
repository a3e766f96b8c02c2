"""The classes of a user's own folder: `classes.yaml`, `classes.txt` or CVAT's `labelmap.txt`, and what id 0 means there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contseg.data.classes import IGNORE, Background, ClassTable, Colour, voc_palette
from contseg.data.lists import read_list, read_text
from contseg.errors import ContsegError

FILES = ("classes.yaml", "classes.yml", "classes.txt", "labelmap.txt")
CHOICES = ("annotated", "unlabelled", "none")


@dataclass(frozen=True)
class ClassList:
    """A class list as it was read.

    Args:
        table: the classes.
        id_of: the id of every mask value that is a class, where the two differ; None where masks hold the ids.
        colours: the mask value of every colour that the list names; empty where it names none.
        palettes_tell: a palette mask is meant by its colours, not by its numbers (CVAT).
        notes: what should be known before training.
    """

    table: ClassTable
    id_of: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None
    palettes_tell: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    number: int
    name: str
    colour: Colour | None


def is_background(name: str) -> bool:
    """Whether a class of this name is no class.

    Example:
        >>> [is_background(name) for name in ("Background", "_background_", "bg", "void", "road", "bgr")]
        [True, True, True, True, False, False]
    """
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    return plain in ("background", "bg", *_UNLABELLED)


_UNLABELLED = ("unlabelled", "unlabeled", "unannotated", "void", "ignore", "ignored")


def read_class_list(root: Path, background: Any = None) -> ClassList:
    """The classes of a folder from `classes.yaml`, `classes.yml`, `classes.txt` or `labelmap.txt`.

    Args:
        background: what id 0 means: `annotated`, `unlabelled` or `none` (true and false are read as `annotated` and `none`);
            None: `annotated`, if the class of id 0 has the name of a background.

    Raises:
        ContsegError: no list is there, it cannot be understood, or the meaning of id 0 is not given.
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
    return replace(listed, palettes_tell=path.name == "labelmap.txt")


def _chosen(background: Any) -> str | None:
    """One of `CHOICES`, or None."""
    if background is None or isinstance(background, bool):
        return {None: None, True: "annotated", False: "none"}[background]
    word = str(background).casefold().replace("unlabeled", "unlabelled")
    if word not in CHOICES:
        raise ContsegError(f"data.options.background: {background!r} is unknown; known: {', '.join(CHOICES)}")
    return word


def _with_background(rows: Sequence[_Row], chosen: str | None, path: Path) -> ClassList:
    """The class table of the rows, if id 0 means this; None looks at the name of id 0."""
    if chosen == "none":
        return _without(rows)
    if chosen is not None and not any(row.number == 0 for row in rows):
        rows = [_Row(0, "background", None), *rows]
    table = _table(rows, "unscored" if chosen == "unlabelled" else "annotated")
    first = table.names[0]
    if chosen is None and not is_background(first):
        raise ContsegError(
            f"{path}: id 0 is '{first}', which is no name of a background; set data.options.background=none if it is a class"
            " like the others, annotated if it is the background, or unlabelled if it only marks pixels that nobody named"
        )
    notes: tuple[str, ...] = ()
    if chosen is None and "".join(filter(str.isalnum, first.casefold())) in _UNLABELLED:
        notes = (
            f"{path.name}: id 0 is '{first}' and is learned and scored as background; data.options.background=unlabelled"
            " does not score it",
        )
    return ClassList(table, colours=_colours(rows), notes=notes)


def _without(rows: Sequence[_Row]) -> ClassList:
    """Every row is a class. Where one has id 0, all move up, because 0 is what steps by class do not annotate."""
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
    """Mask values by colour, of the rows that name one.

    Raises:
        ContsegError: two rows have one colour.
    """
    values: dict[Colour, int] = {}
    for row in rows:
        if row.colour is not None and values.setdefault(row.colour, row.number) != row.number:
            raise ContsegError(f"the colour {list(row.colour)} is of id {values[row.colour]} and of id {row.number}")
    return values


def _from_yaml(path: Path) -> list[_Row]:
    try:
        content = YAML(typ="safe").load(read_text(path))
    except YAMLError as error:
        raise ContsegError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if isinstance(content, dict) and set(content) == {"classes"}:
        content = content["classes"]
    if isinstance(content, dict):
        content = [{"id": number, "name": name} for number, name in content.items()]
    try:
        rows = [_Row(int(row["id"]), str(row["name"]), _colour(row.get("colour", row.get("color")))) for row in content]
        if not rows:
            raise ValueError
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ContsegError(f"{path}: expected `0: background`, `1: name`, ... or a list of id, name, colour") from None
    return sorted(rows, key=lambda row: row.number)


def _colour(value: Any) -> Colour | None:
    """RGB, or a ValueError."""
    if value is None:
        return None
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError
    return red, green, blue


def _from_labelmap(path: Path) -> list[_Row]:
    """Lines `name:red,green,blue:parts:actions`, as CVAT and Datumaro write them; the background first."""
    rows = []
    for line in read_list(path):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            rows.append((name, _colour(rest.partition(":")[0].split(","))))
        except (TypeError, ValueError):
            raise ContsegError(f"{path}: cannot read '{line}'; expected `name:red,green,blue::`") from None
    rows.sort(key=lambda row: not is_background(row[0]))
    ids = [number for number in range(len(rows) + 1) if number != IGNORE][: len(rows)]
    return [_Row(number, name, colour) for number, (name, colour) in zip(ids, rows, strict=True)]

"""A recipe in full: every value, and where it comes from."""

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from contseg.recipes.published import COUNTED, PublishedRow, published_for
from contseg.recipes.read import recipe_text, resolve

DEFAULT = "default"
COLUMNS = 80


def describe(source: str | Path, overrides: Sequence[str] = ()) -> str:
    """The resolved recipe as YAML, with the origin of every value and the comment in its file, as comments.

    Args:
        source, overrides: as in `read_recipe`.

    Raises:
        ContsegError: see `read_recipe`.

    Example:
        >>> print(describe("voc/plop_15-1_overlapped").partition("method:")[2].splitlines()[1].split(":", 1)[1].strip())
        plop  # parts/plop-voc
    """
    resolved = resolve(source, overrides)
    comments = {name: comments_of(recipe_text(name)) for name in resolved.layers}
    lines = list(_lines(resolved.recipe.model_dump(mode="json")))
    width = min(48, max(len(text) for text, key in lines if key))
    head = _wrapped(f"layers: {', '.join(resolved.layers)}")
    for text, key in lines:
        if not key:
            head.append(text)
            continue
        origin = _origin(resolved.origins, key)
        remark = comments.get(origin, {}).get(key, "")
        note = f"{origin}: {remark}" if remark else origin
        line = f"{text:<{width}}  # {note}"
        if len(line) > COLUMNS:  # the comment is above the key, which is not wrapped
            head += [*_wrapped(note, " " * (len(text) - len(text.lstrip()))), text]
        else:
            head.append(line)
    return "\n".join([*head, *_published(published_for(resolved.recipe))])


def _wrapped(text: str, indent: str = "") -> list[str]:
    """The lines of a comment."""
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}#   ",
        break_long_words=False,
        break_on_hyphens=False,  # paths stay whole
    )


def comments_of(text: str) -> dict[str, str]:
    """The comments of a YAML text: dotted key (`training.lr`) to the comment on its line.

    Example:
        >>> comments_of("a: 1 # one\\nb:\\n  c: 2 # two\\n  d: 3")
        {'a': 'one', 'b.c': 'two'}
    """
    return dict(_comments(YAML().load(text), ""))


def _comments(content: CommentedMap, prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        tokens = content.ca.items.get(key) or [None] * 4
        comment = tokens[2].value.splitlines()[0] if tokens[2] is not None else ""
        if comment.startswith("#"):
            yield f"{prefix}{key}", comment.lstrip("# ")
        if isinstance(value, CommentedMap):
            yield from _comments(value, f"{prefix}{key}.")


def _lines(content: dict[str, Any], prefix: str = "", indent: str = "") -> Iterator[tuple[str, str]]:
    """Lines of YAML and the key of each, "" for a line that only opens a mapping."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", ""
            yield from _lines(value, f"{prefix}{key}.", indent + "  ")
        else:
            yield f"{indent}{key}: {_value(value)}", f"{prefix}{key}"


def _value(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value) and value not in ("true", "false", "null")
    return str(value) if plain else json.dumps(value)


def _origin(origins: Any, key: str) -> str:
    """The origin of a key, or else of a key inside it or around it (for an empty mapping)."""
    parts = key.split(".")
    return next((origins[".".join(parts[:n])] for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in origins), DEFAULT)


def _published(rows: Sequence[PublishedRow]) -> list[str]:
    if not rows:
        return ["# published on this protocol: none in this package"]
    lines = [line for row in rows for line in _wrapped(f"  {published_line(row)}")]
    return ["# published on this protocol, old / new / all in %:", *lines]


def published_line(row: PublishedRow) -> str:
    """A published row in one line.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> published_line(published_for(read_recipe("voc/mib_15-1_disjoint"))[0])
        '46.2 / 12.9 / 37.9 (background not counted; published: MiB repository, VOC table)'
    """
    return f"{row.shown} (background {COUNTED[row.background]}; {row.certainty}: {row.source})"

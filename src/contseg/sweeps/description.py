"""Files that describe many runs (`sweep.yaml`, `tune.yaml`): read with errors that name the key, and written atomically."""

import io
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from contseg.atomic import write_text
from contseg.data.lists import read_text
from contseg.errors import ContsegError, did_you_mean
from contseg.options import Options, first_error, problem
from contseg.parsing import parse_yaml

FORMAT = 1
"""Of the files; another number is refused."""

Kind = TypeVar("Kind", bound=Options)


def read_description(kind: type[Kind], path: Path, key: str, what: str) -> Kind:
    """Read a file.

    Args:
        kind: the options that it contains, with the number of its format.
        key: without it the file is something else.
        what: the description, for errors.

    Raises:
        ContsegError: the file is missing, describes nothing, was written by another version, or has a wrong key or value.
    """
    content = parse_yaml(read_text(path), str(path))
    if not isinstance(content, dict) or key not in content:
        raise ContsegError(f"{path}: describes no {what} ({key}: is missing); {_example(kind, key)}")
    if (form := content.pop("format", FORMAT)) != FORMAT:
        raise ContsegError(
            f"{path}: written by another version of contseg (format {form}, this one reads {FORMAT}); use that version,"
            " or choose another folder with --out"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ContsegError(f"{path}: {_first_problem(kind, error)}") from None


def _first_problem(kind: type[Options], error: ValidationError) -> str:
    """The first key with an error, what was found, and an example of the key."""
    first = first_error(error)
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; {did_you_mean(key, [info.alias or name for name, info in kind.model_fields.items()])}"
    if first["type"] == "missing":
        return f"{key}: is missing; {_example(kind, key)}"
    return f"{key}: {problem(error)}; {_example(kind, key)}"


def _example(kind: type[Options], key: str) -> str:
    examples = [info.examples for name, info in kind.model_fields.items() if key in (name, info.alias)]
    shown = f", such as {key}: {examples[0][0]}" if examples and examples[0] else ""
    return f"correct {key}{shown}"


def write_description(options: Options, path: Path) -> None:
    """Write a file atomically; several commands may write it. Empty lists and mappings are left out."""
    yaml, text = YAML(), io.StringIO()
    yaml.width = 1 << 20
    given = options.model_dump(mode="json", by_alias=True)
    yaml.dump({"format": FORMAT} | {key: value for key, value in given.items() if value not in ([], {})}, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue(), shared=True)


def repeated(values: list) -> object | None:
    """The first value that is equal to one before it; None if all differ.

    Example:
        >>> repeated([0, 7, 0]), repeated([1.0, 1]), repeated(["own", "b"])
        (0, 1, None)
    """
    return next((value for place, value in enumerate(values) if value in values[:place]), None)

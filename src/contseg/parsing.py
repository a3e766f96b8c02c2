"""YAML and JSON of any origin: read without executing anything, in bounded time, with errors in one line."""

import json
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contseg.errors import ContsegError

MAX_YAML = 2**20
"""Characters of a YAML file. Parsing takes about ten seconds per million; the longest packaged recipe has 3000."""
MAX_DEPTH = 50
HALF = re.compile("[\ud800-\udfff]")
"""Surrogates, of which JSON writes two for one character; YAML does not join them, and no file can contain them."""
MAX_VALUES = 100_000
"""Values of a YAML file, with every alias counted in full: a few nested aliases repeat a value millions of times."""


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text: mappings, lists and plain values. Tags of Python are refused.

    Args:
        where: begins every error.

    Raises:
        ContsegError: it is not YAML, is too long or too deep, contains itself, or repeats values too often.

    Example:
        >>> parse_yaml("lr: 0.1\\nmilestones: [30, 60]", "recipe.yaml")
        {'lr': 0.1, 'milestones': [30, 60]}
        >>> parse_yaml("&a [*a]", "recipe.yaml")
        Traceback (most recent call last):
        contseg.errors.ContsegError: recipe.yaml: nested deeper than 50 levels; write it flatter
    """
    if len(text) > MAX_YAML:
        raise ContsegError(f"{where}: {len(text)} characters of YAML, more than {MAX_YAML}; is this the right file?")
    try:
        _require_shallow(text)
        content = YAML(typ="safe").load(text)
        _require_plain(content)
    except YAMLError as error:
        problem = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise ContsegError(f"{where}: not YAML ({problem[:160]}); correct it") from None
    except RecursionError:
        raise ContsegError(f"{where}: nested deeper than {MAX_DEPTH} levels; write it flatter") from None
    except (ValueError, TypeError, ArithmeticError, AttributeError, KeyError, IndexError) as error:
        # values that YAML allows and Python does not: a date of month 13, an integer of 5000 digits
        raise ContsegError(
            f"{where}: not YAML that can be read ({' '.join(str(error).split())[:160]}); correct it"
        ) from None
    return content


def parse_json(text: str, where: str) -> Any:
    """The content of a JSON text.

    Args:
        where: begins every error.

    Raises:
        ContsegError: it is not JSON, or too deep.

    Example:
        >>> parse_json("[1, 2", "a.json")
        Traceback (most recent call last):
        contseg.errors.ContsegError: a.json: not JSON (Expecting ',' delimiter: line 1 column 6 (char 5)); replace the file
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ContsegError(f"{where}: not JSON that can be read (nested too deep); replace the file") from None
    except ValueError as error:
        raise ContsegError(f"{where}: not JSON ({' '.join(str(error).split())[:120]}); replace the file") from None


def _require_shallow(text: str) -> None:
    """Raise RecursionError for obvious depth before the parser takes its time."""
    depth = 0
    for character in text:
        depth += character in "[{"
        depth -= character in "]}"
        if depth > 10 * MAX_DEPTH:  # brackets in texts are counted too
            raise RecursionError


def _require_plain(content: Any) -> None:
    """Raise RecursionError or ValueError if a content is too deep (or circular), too large with all aliases, or no text."""
    level, count = [content], 0
    for _ in range(MAX_DEPTH):
        if any(isinstance(one, str) and HALF.search(one) for one in level):
            raise ValueError("escapes of half a character, such as \\ud83d; write the character itself")
        level = [
            child
            for one in level
            if isinstance(one, dict | list | tuple | set)
            for child in ((*one, *one.values()) if isinstance(one, dict) else one)
        ]
        if not level:
            return
        count += len(level)
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values with all aliases")
    raise RecursionError

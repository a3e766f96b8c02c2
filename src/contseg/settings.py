"""Settings of the command line: KEY=VALUE."""

from typing import Any

from contseg.errors import ContsegError
from contseg.parsing import parse_yaml


def key_value(setting: str, example: str, what: str = "") -> tuple[str, Any]:
    """Split a setting into key and value. The value is parsed as YAML; an empty one is None.

    Args:
        setting: the text.
        example: a valid setting, for the error.
        what: begins the error, for example `"override "`.

    Raises:
        ContsegError: `=` or a part of the key is missing, or the value is not YAML.

    Example:
        >>> key_value("training.lr=0.01", "size=48"), key_value("data.test_crop=", "size=48")
        (('training.lr', 0.01), ('data.test_crop', None))
    """
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise ContsegError(f"{what}'{setting}': write KEY=VALUE, such as {example}")
    try:
        return key, parse_yaml(text, setting) if text else None
    except ContsegError:
        raise ContsegError(
            f"{what}{setting[:80]!r}: the value is not YAML, or too long or too deep; put it in quotes"
        ) from None

"""Settings of the command line: KEY=VALUE."""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contseg.errors import ContsegError


def key_value(setting: str, example: str, what: str = "") -> tuple[str, Any]:
    """Split a setting into key and value. The value is parsed as YAML; an empty one is None.

    Args:
        setting: the text.
        example: a valid setting, for the error.
        what: begins the error, for example `"override "`.

    Raises:
        ContsegError: `=` or the key is missing, or the value is not YAML.

    Example:
        >>> key_value("training.lr=0.01", "size=48"), key_value("data.test_crop=", "size=48")
        (('training.lr', 0.01), ('data.test_crop', None))
    """
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ContsegError(f"{what}'{setting}': write KEY=VALUE, such as {example}")
    try:
        return key, YAML(typ="safe").load(text) if text else None
    except YAMLError:
        raise ContsegError(f"{what}'{setting}': the value is not YAML") from None

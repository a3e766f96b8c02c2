"""What a tuning searches: hyper-parameters and their ranges, `1e-3:1e-1:log`, `1:8` or `{a,b}`."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contseg.errors import ContsegError
from contseg.parsing import parse_yaml
from contseg.sweeps.sweep import ELSEWHERE

EXAMPLE = "write KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY={a,b}, such as method.pod=1e-3:1e-1:log"
DIGITS = 6
"""Significant digits of a value, so that the values that are reported are the ones that were trained."""


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`, both included; whole numbers if both ends are.

    Args:
        low, high: the ends.
        log: whether the logarithm of the value is searched.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are searched."""
        return isinstance(self.low, int)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for all to be."""
        return self.low, self.high

    def rounded(self, value: Any) -> Any:
        """A suggested value with `DIGITS` digits, within the range."""
        return value if self.whole else min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def position(self, value: Any) -> Any:
        """A value of a recipe as a value of this range; None if it is not in it."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return None
        return value if self.low <= value <= self.high else None


@dataclass(frozen=True)
class OneOf:
    """One of several values, each as it is written in KEY=VALUE."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for all to be."""
        return self.values

    def rounded(self, value: Any) -> Any:
        """The value."""
        return value

    def position(self, value: Any) -> Any:
        """A value of a recipe as a value of this range; None if it is not in it."""
        return text if (text := written(value)) in self.values else None


Range = Between | OneOf


def written(value: Any) -> str:
    """A value as it is written in KEY=VALUE.

    Example:
        >>> written("resnet18"), written([9, 5]), written(0.5), written(None)
        ('resnet18', '[9, 5]', '0.5', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value)


def range_of(key: str, text: str) -> Range:
    """The range of a key.

    Args:
        key: dotted, such as `method.pod`.
        text: `LOW:HIGH`, `LOW:HIGH:log`, or values `{a,b}`.

    Raises:
        ContsegError: it has another form, the range is empty or not finite, `log` has an end that is not above 0, fewer than
            two values are listed, or the key is no hyper-parameter.

    Example:
        >>> range_of("method.pod", "1e-3:1e-1:log"), range_of("method.bins", "10:1000")
        (Between(low=0.001, high=0.1, log=True), Between(low=10, high=1000, log=False))
        >>> range_of("training.epochs", "{[9, 5], 12}")
        OneOf(values=('[9, 5]', '12'))
        >>> range_of("method.pod", "0:1:log")
        Traceback (most recent call last):
        contseg.errors.ContsegError: --space: method.pod=0:1:log: log needs ends above 0; raise 0, or remove :log
    """
    where = f"--space: {key}={text}"
    if key in ELSEWHERE or key.startswith("scenario."):
        raise ContsegError(f"--space: {key} cannot be tuned: it is no hyper-parameter of the training; remove it")
    if text.startswith("{") and text.endswith("}"):
        return _one_of(where, text[1:-1])
    low, colon, rest = text.partition(":")
    high, second, word = rest.partition(":")
    first, last = _number(low), _number(high)
    if not colon or (second and word != "log") or first is None or last is None:
        raise ContsegError(f"{where[:100]}: expected a range; {EXAMPLE}")
    if not isinstance(first, int) or not isinstance(last, int):
        first, last = float(first), float(last)
    if not math.isfinite(first) or not math.isfinite(last):
        raise ContsegError(f"{where}: the ends must be finite numbers; {EXAMPLE}")
    if first >= last:
        raise ContsegError(f"{where}: {low} is not below {high}; write the smaller end first")
    if second and first <= 0:
        raise ContsegError(f"{where}: log needs ends above 0; raise {low}, or remove :log")
    return Between(first, last, bool(second))


def _number(text: str) -> int | float | None:
    """A number as it is written; None if it is something else."""
    if re.fullmatch(r"[+-]?\d{1,15}", text):
        return int(text)
    try:
        return float(text) if len(text) <= 40 and "_" not in text else None
    except ValueError:
        return None


def _one_of(where: str, text: str) -> OneOf:
    try:
        values = parse_yaml(f"[{text}]", "--space")
    except ContsegError:
        raise ContsegError(f"{where[:100]}: the values are not YAML; {EXAMPLE}") from None
    words = tuple(dict.fromkeys(map(written, values)))
    if len(words) < 2:
        raise ContsegError(f"{where}: a choice needs two different values or more; set a single one as KEY=VALUE")
    return OneOf(words)


def space_of(settings: Sequence[str]) -> dict[str, str]:
    """Key to range, as written, of several `--space`.

    Raises:
        ContsegError: there are none, one is not KEY=RANGE, or a key occurs twice; see also `range_of`.

    Example:
        >>> space_of(["method.pod=1e-3:1e-1:log", "training.lr={0.1,0.01}"])
        {'method.pod': '1e-3:1e-1:log', 'training.lr': '{0.1,0.01}'}
    """
    found: dict[str, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not text or not all(key.split(".")):
            raise ContsegError(f"--space: '{setting[:80]}': expected KEY=RANGE; {EXAMPLE}")
        if key in found:
            raise ContsegError(f"--space: {key} occurs twice; remove one of them")
        range_of(key, text)
        found[key] = text
    if not found:
        raise ContsegError(f"--space: is missing, so nothing would be tuned; {EXAMPLE}")
    return found

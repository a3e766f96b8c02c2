"""Options that users set: exact types and finite numbers within ranges, each checked when it is read.

The upper ends of the ranges are far above sensible values: a typing mistake fails here, not for lack of memory.
"""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from contseg.errors import ContsegError

PathText = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Several = Annotated[int, Field(ge=1, le=1_000_000)]
Processes = Annotated[int, Field(ge=1, le=1024)]
Seconds = Annotated[int, Field(ge=1, le=86400)]
Pixels = Annotated[int, Field(ge=1, le=65536)]
Side = Annotated[int, Field(ge=8, le=65536)]
Depth = Annotated[int, Field(ge=1, le=256)]
Channels = Annotated[int, Field(ge=1, le=8192)]
ChannelsOrNone = Annotated[int, Field(ge=0, le=65536)]
Factor = Annotated[float, Field(gt=0, le=1000)]
Amount = Annotated[float, Field(ge=0, le=1000)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]

_MESSAGES = {
    "string_pattern_mismatch": "Input should be a path, which is not empty and has no null character",  # of `PathText`
    "model_type": "Input should be keys with values, such as {key: value}",  # a section of a recipe
    "dict_type": "Input should be keys with values, such as {key: value}",
}
"""Messages that replace those of pydantic, by its type of error."""


class Options(BaseModel):
    """Frozen options. Unknown keys, values of another type, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Any(Options):
    model_config = ConfigDict(arbitrary_types_allowed=True)  # of a plugin


def checked(key: str, kind: Any, value: Any) -> Any:
    """A single value as a type, with the rules of `Options`.

    Args:
        key: name of the value, for the error.
        kind: a type, which may be `Annotated` with a range.

    Raises:
        ContsegError: the value has another type, is not finite, or is out of range.

    Example:
        >>> checked("method.alpha", Share, 0.5)
        0.5
        >>> checked("method.alpha", Share, 2.0)
        Traceback (most recent call last):
        contseg.errors.ContsegError: method.alpha: Input should be less than or equal to 1 (got 2.0)
    """
    try:
        return create_model("Value", __base__=_Any, value=(kind, ...)).model_validate({"value": value}).__dict__["value"]
    except ValidationError as error:
        raise ContsegError(f"{key}: {problem(error)}") from None


KIND = re.compile(r"int|str|float|(list|tuple|dict|literal)\[.*|constrained-.*|\[key\]")
"""Parts of the place of an error that are types, not keys."""


def first_error(error: ValidationError) -> dict[str, Any]:
    """The first error of a validation; of a value with several types, that of the type which it fits best.

    Example:
        >>> try:
        ...     create_model("Options", epochs=(int | list[Count], ...))(epochs=[9, -1])
        ... except ValidationError as error:
        ...     first_error(error)["msg"]
        'Input should be greater than or equal to 0'
    """
    first, *others = error.errors()
    kinds = [place for place, part in enumerate(first["loc"]) if KIND.fullmatch(str(part))]
    if not kinds:
        return dict(first)
    key = first["loc"][: kinds[0]]
    same = [other for other in others if other["loc"][: len(key)] == key]
    return dict(max([first, *same], key=lambda one: len(one["loc"])))


def problem(error: ValidationError) -> str:
    """The first problem of a validation and the value that was found, in one line."""
    first = first_error(error)
    if first["type"] == "value_error":  # raised by one of our validators
        return first["msg"].removeprefix("Value error, ")
    found = repr(first["input"])
    message = _MESSAGES.get(first["type"], first["msg"])
    return f"{message} (got {found if len(found) <= 100 else found[:100] + '...'})"

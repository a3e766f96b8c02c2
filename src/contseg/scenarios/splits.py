"""The grammar of splits: how many classes each step brings."""

import re

from contseg.errors import ContsegError


def parse_split(split: str, classes: int) -> tuple[int, ...]:
    """Classes per step, background never counted.

    Two numbers are base + increment and must divide exactly; three or more, or two that do not divide, are explicit
    widths; `offline` is one step.

    Args:
        split: such as "15-1", "100-50", "2-2-1", "offline".
        classes: classes of the dataset without background.

    Returns:
        one positive number per step, adding up to `classes`.

    Raises:
        ContsegError: the split cannot be read or does not add up.

    Example:
        >>> parse_split("15-1", 20)
        (15, 1, 1, 1, 1, 1)
        >>> parse_split("2-3", 5), parse_split("2-2-1", 5), parse_split("offline", 5)
        ((2, 3), (2, 2, 1), (5,))
    """
    if split == "offline":
        return (classes,)
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+", split):
        raise ContsegError(
            f"scenario.split: cannot read '{split}'; write BASE-INCREMENT such as 15-1, widths such as 2-2-1, or offline"
        )
    widths = tuple(int(part) for part in split.split("-"))
    base, increment = widths[0], widths[1]
    if len(widths) == 2 and base < classes and (classes - base) % increment == 0:
        return (base,) + (increment,) * ((classes - base) // increment)
    if sum(widths) != classes:
        raise ContsegError(
            f"scenario.split: '{split}' does not fit {classes} classes"
            + (f" ({classes} - {base} is not a multiple of {increment})" if len(widths) == 2 and base < classes
               else f" (it asks for at least {sum(widths)})" if sum(widths) > classes else f" (it adds up to {sum(widths)})")
        )  # fmt: skip
    return widths

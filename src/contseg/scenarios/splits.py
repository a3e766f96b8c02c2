"""The grammar of splits: how many classes each step brings."""

import re
from difflib import get_close_matches

from contseg.errors import ContsegError


def parse_split(split: str, classes: int, what: str = "classes") -> tuple[int, ...]:
    """Classes per step, background never counted.

    Two numbers are base + increment and must divide exactly; three or more, or two that do not divide, are explicit
    widths; `offline` is one step.

    Args:
        split: such as "15-1", "100-50", "2-2-1", "offline".
        classes: classes of the dataset without background; or domains.
        what: what is divided, for messages.

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
    if split != "offline" and not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+", split):
        raise ContsegError(
            f"scenario.split: cannot read '{split}'; write BASE-INCREMENT such as 15-1, widths such as 2-2-1,"
            f" or offline{_nearest(split, classes)}"
        )
    widths = _widths(split, classes)
    if widths is None:
        base, increment, *more = (int(part) for part in split.split("-"))
        if not more and base < classes:
            reason = f"{classes} - {base} is not a multiple of {increment}"
        else:
            reason = f"it adds up to {base + increment + sum(more)}"
        raise ContsegError(f"scenario.split: '{split}' does not fit {classes} {what} ({reason}){_nearest(split, classes)}")
    return widths


def split_size(split: str) -> tuple[int, ...]:
    """A key to sort splits by: most classes first; `offline` before all.

    Example:
        >>> sorted(["10-1", "15-1", "offline", "100-50", "15-5"], key=split_size)
        ['offline', '100-50', '15-5', '15-1', '10-1']
    """
    return () if split == "offline" else tuple(-int(part) for part in split.split("-"))


def _widths(split: str, classes: int) -> tuple[int, ...] | None:
    """The widths of a well-formed split, or None where they do not fit."""
    if split == "offline":
        return (classes,)
    widths = tuple(int(part) for part in split.split("-"))
    base, increment = widths[0], widths[1]
    if len(widths) == 2 and base < classes and (classes - base) % increment == 0:
        return (base,) + (increment,) * ((classes - base) // increment)
    return widths if sum(widths) == classes else None


COMMON = ("19-1", "15-5", "15-1", "10-10", "10-5-5", "10-1", "5-5", "5-3", "5-1", "4-1", "2-3", "2-2-1", "2-2", "2-1", "1-1",
          "100-50", "100-10", "100-5", "50-50", "50-20", "10-9", "14-1", "11-5", "11-1", "offline")  # fmt: skip


def _nearest(split: str, classes: int) -> str:
    """A common split that fits and looks alike, as the end of an error line."""

    close = get_close_matches(split, COMMON, n=len(COMMON), cutoff=0.4)
    fitting = next((name for name in close if _widths(name, classes)), None)
    return f"; did you mean '{fitting}'?" if fitting else ""

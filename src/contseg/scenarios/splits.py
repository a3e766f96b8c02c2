"""The grammar of splits: how many classes each step brings."""

import re
from itertools import accumulate

from contseg.errors import ContsegError


def parse_split(split: str, classes: int, what: str = "classes") -> tuple[int, ...]:
    """Classes per step, background never counted.

    Two numbers are base + increment and must divide exactly; three or more, or two that do not divide, are explicit
    widths; `offline` is one step.

    Args:
        split: such as "15-1", "100-50", "2-2-1", "offline".
        classes: classes of the dataset without background; or domains.
        what: the unit, for messages.

    Returns:
        One positive number per step, with sum `classes`.

    Raises:
        ContsegError: the split cannot be read or does not add up.

    Example:
        >>> parse_split("15-1", 20)
        (15, 1, 1, 1, 1, 1)
        >>> parse_split("2-3", 5), parse_split("2-2-1", 5), parse_split("offline", 5)
        ((2, 3), (2, 2, 1), (5,))
    """
    likely = " or ".join(likely_splits(split, classes))
    if split != "offline" and not re.fullmatch(r"[1-9]\d{0,5}(-[1-9]\d{0,5})+", split):
        how = f"BASE-INCREMENT such as {likely}, one number per step, or offline" if likely else "offline, all at once"
        raise ContsegError(f"scenario.split: cannot read '{split}'; for {classes} {what} write {how}")
    widths = _widths(split, classes)
    if widths is None:
        base, increment, *more = (int(part) for part in split.split("-"))
        if not more and base < classes:
            reason = f"{classes} - {base} is not a multiple of {increment}"
        else:
            reason = f"it adds up to {base + increment + sum(more)}"
        hint = f"set scenario.split={likely}, or offline" if likely else "set scenario.split=offline"
        raise ContsegError(f"scenario.split: '{split}' does not fit {classes} {what} ({reason}); {hint}")
    return widths


def split_size(split: str) -> tuple[int, ...]:
    """A sort key of splits: most classes first, `offline` before all.

    Example:
        >>> sorted(["10-1", "15-1", "offline", "100-50", "15-5"], key=split_size)
        ['offline', '100-50', '15-5', '15-1', '10-1']
    """
    return () if split == "offline" else tuple(-int(part) for part in split.split("-"))


def _widths(split: str, classes: int) -> tuple[int, ...] | None:
    """The widths of a well-formed split, or None if they do not fit."""
    if split == "offline":
        return (classes,)
    widths = tuple(int(part) for part in split.split("-"))
    base, increment = widths[0], widths[1]
    if len(widths) == 2 and base < classes and (classes - base) % increment == 0:
        return (base,) + (increment,) * ((classes - base) // increment)
    return widths if sum(widths) == classes else None


def likely_splits(split: str, classes: int) -> list[str]:
    """Splits that fit, closest to one that may not fit; empty if there is only one class.

    Example:
        >>> likely_splits("15-2", 20), likely_splits("4", 10), likely_splits("2-2-2", 5), likely_splits("9-1", 1)
        (['15-1', '15-5'], ['4-1', '4-2'], ['2-2-1', '2-1'], [])
    """
    if classes < 2:
        return []
    given = [int(part) for part in re.findall(r"\d+", split)]
    base = given[0] if given and 0 < given[0] < classes else (classes + 1) // 2
    wanted, rest = given[1] if len(given) > 1 else 1, classes - base
    steps = sorted((width for width in range(1, rest + 1) if rest % width == 0), key=lambda width: abs(width - wanted))
    found = [f"{base}-{width}" for width in steps[:2]]
    fitting = [width for width, end in zip(given, accumulate(given), strict=True) if width > 0 and end < classes]
    if len(given) > 2 and len(fitting) > 1:
        found.insert(0, "-".join(map(str, [*fitting, classes - sum(fitting)])))
    return found[:2]

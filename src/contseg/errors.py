"""The exception for errors in the input: one line with the location, what was found, and what to do."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


class ContsegError(Exception):
    """An error in the input (a file, a recipe key, a folder), in one line; the command line exits with code 2.

    Example:
        >>> raise ContsegError("masks/a.png: ids 9 are not in the class table; add them to classes.txt")
        Traceback (most recent call last):
        contseg.errors.ContsegError: masks/a.png: ids 9 are not in the class table; add them to classes.txt
    """


INVISIBLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"  # all but the line feed
)
"""Characters that control a terminal, change the direction of text, or are invalid in HTML or SVG."""


def visible(text: str) -> str:
    """The text with escapes in place of `INVISIBLE` characters, safe to print or draw.

    Example:
        >>> print(visible("a\\x1b[31mred"))
        a\\x1b[31mred
    """
    return INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def counted(count: int, what: str) -> str:
    """A number and a noun, in the plural unless the number is 1.

    Example:
        >>> counted(1, "image"), counted(0, "image")
        ('1 image', '0 images')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error on an unknown name: the closest match and all known names.

    Example:
        >>> did_you_mean("plopp", ["plop", "mib"])
        "did you mean 'plop'? (known: mib, plop)"
        >>> did_you_mean("zzz", ["plop", "mib"])
        'known: mib, plop'
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    listing = f"known: {', '.join(known)}"
    return f"did you mean '{close[0]}'? ({listing})" if close else listing

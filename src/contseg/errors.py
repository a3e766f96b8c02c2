"""The exception for errors in the input: one line with the location, what was found, and what to do."""

import errno
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


_ADVICE = {
    errno.ENOSPC: "make room, or choose another folder",
    errno.EDQUOT: "make room, or choose another folder",
    errno.EROFS: "choose another folder",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EISDIR: "choose a file",
    errno.EEXIST: "choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "replace the link, which leads back to itself",
    errno.EMFILE: "raise the limit with: ulimit -n 4096, or lower training.workers",
    errno.ENFILE: "close other programs, or lower training.workers",
    errno.ENOMEM: "lower training.batch, data.crop or training.workers",
    errno.EIO: "check the disk, and copy the data elsewhere",
    errno.ESTALE: "mount the file system again, and repeat the command",
    errno.EBUSY: "close the program that uses it, and repeat the command",
}


def system_error(error: OSError) -> ContsegError:
    """An error of the operating system in one line: the path, what failed, and what to do.

    Example:
        >>> print(system_error(OSError(errno.ENOSPC, "No space left on device", "runs/a/state.pt")))
        runs/a/state.pt: No space left on device; make room, or choose another folder
    """
    paths = " -> ".join(str(path) for path in (error.filename, error.filename2) if path is not None)
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "repeat the command, or choose another path")
    return ContsegError(f"{f'{paths}: ' if paths else ''}{reason}; {advice}")


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
    listing = f"known: {', '.join(known)}" if known else "there are none"
    return f"did you mean '{close[0]}'? ({listing})" if close else listing

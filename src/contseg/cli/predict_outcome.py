"""What `contseg predict` prints at the end."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from contseg.cli.console import console
from contseg.cli.predict_files import skipped_text
from contseg.errors import ContsegError, counted


def tell(line: str) -> None:
    """Print a line as it is."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def tell_outcome(images: Path, out: Path, count: int, problems: Sequence[ContsegError], skipped: Counter[str]) -> None:
    """Print what was written where, and what was not.

    Args:
        images: what was to be predicted, `count` images.
        problems: of the images that were not.
        skipped: pictures of other formats, by suffix.

    Raises:
        ContsegError: some images were not predicted.
    """
    if skipped:
        tell(skipped_text(skipped))
    if problems and count == 1:
        raise problems[0]
    for problem in problems:
        tell(f"not predicted: {problem}")
    done = count - len(problems)
    if problems:
        failed = f"{len(problems)} of {count} images not predicted, as listed above"
        raise ContsegError(f"{images}: {failed}; {counted(done, 'result')} in {out}")
    console.print(f"{counted(done, 'image')}: {out}", soft_wrap=True)

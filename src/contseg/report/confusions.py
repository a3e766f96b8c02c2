"""Which classes a run confuses after each step: a picture of the confusion matrix, and the largest shares in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from contseg.errors import visible
from contseg.report.figures import png_uri
from contseg.report.tables import Facts

RIGHT, WRONG = (0, 158, 115), (213, 94, 0)
LEAST = 0.005
"""Smaller shares are not named."""
MOST = 8


def confusion_tables(runs: Mapping[str, Facts]) -> dict[str, list[dict[str, Any]]]:
    """The confusions of each run after each step.

    Undecided pixels have a column of their own, and a row that is empty.

    Returns:
        of each step of a run `names`, `picture` (a pixel per cell, rows are the truth), `shares` (see
        `shares_text`), and `largest`, the `MOST` largest confusions: class, predicted class, share of the class's pixels.
    """
    return {
        name: [_confusions(confusion, facts["classes"]) for confusion in facts["confusions"]] for name, facts in runs.items()
    }


def _confusions(confusion: np.ndarray, classes: list[str]) -> dict[str, Any]:
    lacking = confusion.shape[1] - len(confusion)
    classes = [*classes[: len(confusion)], *["undecided"] * lacking]
    confusion = np.pad(confusion, ((0, lacking), (0, 0)))
    pixels = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, pixels, out=np.zeros(confusion.shape), where=pixels > 0)
    wrong = shares * (1 - np.eye(len(shares)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST]
    places = [divmod(int(place), len(shares)) for place in order]
    return {
        "names": [visible(name) for name in classes],
        "picture": _picture(shares),
        "shares": shares_text(shares),
        "largest": [
            (classes[row], classes[column], wrong[row, column]) for row, column in places if wrong[row, column] >= LEAST
        ],
    }


def shares_text(shares: np.ndarray) -> str:
    """Shares in per mille, rows separated by semicolons, zeros left out.

    Example:
        >>> shares_text(np.array([[0.9, 0.1], [0.0, 1.0]]))
        '900,100;,1000'
    """
    return ";".join(",".join(str(value or "") for value in row) for row in (1000 * shares).round().astype(int).tolist())


def _picture(shares: np.ndarray) -> str:
    """Right shares in one colour and wrong ones in another; opacity is the square root, so that small ones are visible."""
    pixels = np.full((*shares.shape, 4), (*WRONG, 0), dtype=np.uint8)
    pixels[np.eye(len(shares), dtype=bool), :3] = RIGHT
    pixels[..., 3] = (255 * np.sqrt(shares)).round()
    return png_uri(pixels)

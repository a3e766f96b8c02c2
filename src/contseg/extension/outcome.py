"""What an extension learned, kept and lost: a row per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contseg.extension.measure import Comparison
from contseg.report.table import percent

KEPT = 0.01
"""A class is lost if its IoU, or its agreement with the old model, is lower by more than this."""
TOLERATED = 0.1
"""The same for agreement, which also falls where the new model is right."""


@dataclass(frozen=True)
class ClassOutcome:
    """What became of a class. Values are in [0, 1]; None was not measured.

    Args:
        name: of the class.
        new: whether the old model did not have it.
        before, after: IoU by labels, of the old and of the extended model.
        agreement: estimate for an old class without labels: IoU with the predictions of the old model.
    """

    name: str
    new: bool
    before: float | None
    after: float | None
    agreement: float | None

    @property
    def result(self) -> str:
        """`learned`, `kept` or `lost`; "" if nothing was measured. An estimate is marked by "~".

        Example:
            >>> ClassOutcome("cat", False, 0.5, 0.4, 0.9).result, ClassOutcome("cat", False, None, None, 0.95).result
            ('lost', '~ kept')
        """
        if self.new:
            return "learned" if self.after else "not learned" if self.after is not None else ""
        if self.before is not None and self.after is not None:
            return "lost" if self.after < self.before - KEPT else "kept"
        if self.agreement is None:
            return ""
        return "~ lost" if self.agreement < 1 - TOLERATED else "~ kept"

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, result, and values in percent; a dash for what was not measured.

        Example:
            >>> ClassOutcome("boat", True, None, 0.613, None).cells()
            ('boat', 'learned', '-', '61.3', '-')
        """
        before, after, agreement = (
            percent(None if value is None else 100 * value) for value in (self.before, self.after, self.agreement)
        )
        return self.name, self.result or "-", before, after, agreement

    def as_json(self) -> dict[str, Any]:
        """All values and the result."""
        return {**vars(self), "result": self.result}


def outcomes(names: Sequence[str], comparison: Comparison) -> list[ClassOutcome]:
    """A row per class, new ones first."""
    before, after, agreement = comparison.iou_before, comparison.iou_after, comparison.old_agreement
    rows = []
    for place, name in enumerate(names):
        new = place >= comparison.old
        rows.append(
            ClassOutcome(
                name,
                new,
                None if new else _measured(before[place]),
                _measured(after[place]),
                None if new else _measured(agreement[place]),
            )
        )
    return sorted(rows, key=lambda row: not row.new)


def confusions(names: Sequence[str], comparison: Comparison, most: int = 10) -> list[dict[str, Any]]:
    """The largest confusions between old and new classes, as dictionaries of `of`, `as` and `share` of the pixels of `of`.

    Labelled pixels of a new class that are predicted as an old one, and pixels that the old model predicted as an old class
    (outside of labels of new classes) and that are now predicted as a new one; `estimate` marks the latter.
    """
    old, found = comparison.old, []
    labels, agreement = comparison.after.numpy(), comparison.agreement.numpy()
    for new in range(old, len(names)):
        total = max(1, labels[new].sum())
        found += [(names[new], names[other], labels[new, other] / total, False) for other in range(old)]
        found += [(names[other], names[new], row[new] / max(1, row.sum()), True) for other, row in enumerate(agreement)]
    largest = sorted(found, key=lambda one: -one[2])[:most]
    return [
        {"of": of, "as": taken, "share": float(share), "estimate": estimate}
        for of, taken, share, estimate in largest
        if share >= 0.005
    ]


def _measured(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

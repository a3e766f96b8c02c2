"""Which image belongs to which step: boolean expressions over the presence table."""

import numpy as np

from contseg.data.presence import Presence
from contseg.scenarios.policy import SettingName


def select(presence: Presence, new: tuple[int, ...], old: tuple[int, ...], setting: SettingName) -> np.ndarray:
    """Rows of the images of one step, in list order.

    * `overlapped`: the image holds a new class (background does not count).
    * `disjoint`: and it holds no later class; so every image serves exactly one step.
    * `sequential`: the images of `disjoint`; only the labels differ (see `LabelPolicy`).

    Args:
        new, old: class ids of this step and of earlier ones; background in either is ignored.

    Example:
        >>> table = Presence(("a", "b", "c"), (0, 1, 2), np.array([[5, 4, 0], [9, 3, 1], [9, 0, 1]]))
        >>> select(table, (0, 1), (), "overlapped"), select(table, (0, 1), (), "disjoint")
        (array([0, 1]), array([0]))
    """
    named = set(new) - {0}
    rows = presence.contains(named)
    if setting != "overlapped":
        later = set(presence.ids) - named - set(old) - {0}
        rows &= ~presence.contains(later)
    return np.flatnonzero(rows)

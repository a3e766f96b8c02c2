"""Which images a memory keeps so that its classes are as frequent as in all steps so far (BalConpas)."""

from collections.abc import Sequence

import numpy as np

from contseg.scenarios.memory import Exemplar


def balanced_choice(
    presence_NK: np.ndarray, target_K: np.ndarray, count: int, start_K: np.ndarray | None = None
) -> list[int]:
    """Images, in the order in which they are chosen: each brings the class ratio of the memory closest to the target.

    Distance is the sum of absolute differences. Of equal images the first is chosen.

    Args:
        presence_NK: which classes are annotated in each image.
        target_K: share of each class, with a sum of 1.
        count: how many images to choose; fewer if there are fewer.
        start_K: how often each class is in the memory already.

    Example:
        >>> presence = np.array([[1, 0], [1, 0], [0, 1]])
        >>> balanced_choice(presence, np.array([0.5, 0.5]), 2)
        [0, 2]
    """
    counts = np.zeros(len(target_K)) if start_K is None else np.asarray(start_K, dtype=float)
    free = np.ones(len(presence_NK), dtype=bool)
    chosen: list[int] = []
    for _ in range(min(count, len(presence_NK))):
        after = counts + presence_NK
        distance = np.abs(after / np.maximum(after.sum(axis=1, keepdims=True), 1e-12) - target_K).sum(axis=1)
        best = int(np.where(free, distance, np.inf).argmin())
        chosen.append(best)
        free[best], counts = False, after[best]
    return chosen


def two_stage_choice(presence_NK: np.ndarray, target_K: np.ndarray, old: Sequence[int], kept: int, count: int) -> list[int]:
    """A memory of `count` images: `kept` of the old ones, chosen among themselves, filled up from the others.

    Args:
        presence_NK, target_K: as of `balanced_choice`.
        old: images that are in the memory now.

    Example:
        >>> two_stage_choice(np.eye(3), np.full(3, 1 / 3), old=[2], kept=1, count=2)
        [2, 0]
    """
    rows = [old[place] for place in balanced_choice(presence_NK[list(old)], target_K, kept)]
    others = [row for row in range(len(presence_NK)) if row not in set(old)]
    start = presence_NK[rows].sum(axis=0)
    more = balanced_choice(presence_NK[others], target_K, count - len(rows), start)
    return rows + [others[place] for place in more]


class Balance:
    """The choice of a memory step by step: how frequent classes are in all steps so far is what the memory approaches.

    Old images keep the share of the memory that old classes have among all classes so far.

    Args:
        size: images of the memory.

    Example:
        >>> new = [Exemplar(name, 0, frozenset({1 + number % 2})) for number, name in enumerate("abcd")]
        >>> [one.name for one in Balance(2).choose(new, [], 3, 0)]
        ['a', 'b']
    """

    def __init__(self, size: int):
        self._size, self._frequency = size, np.zeros(256)

    def choose(self, new: Sequence[Exemplar], kept: Sequence[Exemplar], seen: int, old: int) -> list[Exemplar]:
        """The memory after a step, sorted by name.

        Args:
            new: the images of the step.
            kept: the memory so far.
            seen, old: number of classes after and before the step.
        """
        for one in new:
            self._frequency[list(one.classes)] += 1
        candidates = [*kept, *new]
        presence = np.zeros((len(candidates), seen))
        for row, one in enumerate(candidates):
            presence[row, list(one.classes)] = 1
        target = self._frequency[:seen] / max(1.0, self._frequency.sum())
        share = int(self._size * old / seen)
        rows = two_stage_choice(presence, target, range(len(kept)), share, self._size)
        return sorted((candidates[row] for row in rows), key=lambda one: (one.name, one.step))

"""Replay memory: the choice of images of earlier steps that are kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Exemplar:
    """A candidate image for the memory.

    Args:
        name: name of the image.
        step: the step of its training.
        classes: classes in the image that were annotated at that step.
    """

    name: str
    step: int
    classes: frozenset[int]


def select_exemplars(
    candidates: Sequence[Exemplar], classes: Sequence[int], size: int, rng: np.random.RandomState
) -> list[Exemplar]:
    """Class-balanced choice (SSUL-M, Cha et al., NeurIPS 2021): the classes take turns in a shuffled order, and
    each selects the first unselected candidate of a shuffled list that contains it.

    Ends when `size` candidates are selected or no class has one left.

    Args:
        candidates: images to choose from.
        classes: old classes without background.
        rng: NumPy's legacy generator, so that published choices can be reproduced.

    Returns:
        The selected candidates, sorted by name.

    Example:
        >>> seen = [Exemplar("a", 0, frozenset({1})), Exemplar("b", 0, frozenset({1})), Exemplar("c", 0, frozenset({2}))]
        >>> [one.name for one in select_exemplars(seen, [1, 2], 2, np.random.RandomState(0))]
        ['b', 'c']
    """
    shuffled = list(candidates)
    rng.shuffle(shuffled)  # type: ignore[arg-type]
    order = list(classes)
    rng.shuffle(order)
    waiting = {number: [place for place, one in enumerate(shuffled) if number in one.classes][::-1] for number in order}
    taken: set[int] = set()
    found = True
    while found and len(taken) < size:
        found = False
        for number in order:
            places = waiting[number]
            while places and places[-1] in taken:
                places.pop()
            if places and len(taken) < size:
                taken.add(places.pop())
                found = True
    return sorted((shuffled[place] for place in taken), key=lambda one: (one.name, one.step))

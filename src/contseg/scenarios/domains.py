"""Steps by domain: which images of which cities are learned, and which are tested."""

from collections.abc import Sequence

import numpy as np

from contseg.data.dataset import SegmentationDataset
from contseg.errors import ContsegError

SHUFFLE_SEED = 1
TRAINING_SHARE = 0.8


def domain_order(dataset: SegmentationDataset, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The domains in order of presentation.

    Raises:
        ContsegError: the dataset tells no domains, or `wanted` names one that it does not have, or one twice.
    """
    if not dataset.domains:
        raise ContsegError(f"scenario.by: dataset '{dataset.name}' tells no domains; use by: class")
    order = tuple(wanted or dataset.domains)
    for name in order:
        if name not in dataset.domains:
            raise ContsegError(f"scenario.domains: '{name}' is no domain of {dataset.name} ({', '.join(dataset.domains)})")
        if order.count(name) > 1:
            raise ContsegError(f"scenario.domains: '{name}' stands more than once")
    return order


def divide_pool(domains: np.ndarray, steps: Sequence[Sequence[str]], released: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of every step, from images that were not divided into training and test by domain.

    The images of a step's domains are shuffled (NumPy's legacy generator, seed 1); the first int(0.8 n) are for training
    (PLOP's Cityscapes protocol). They are tested on

    * what the steps so far have held back, which no step trains on, or
    * `released`: the last fifth of the shuffled images of all domains so far, as published. From step 1 on that
      is another shuffle, so most of these images have been trained on: about four in five.

    Args:
        domains: (I,) the domain of each image, in list order.
        steps: the domains of each step.

    Example:
        >>> divide_pool(np.array(list("aaaaabbbbb")), ["a", "b"], released=False)[1]
        (array([7, 6, 9, 5]), array([3, 8]))
    """
    divided = []
    tested: list[np.ndarray] = []
    for index, names in enumerate(steps):
        train, held = _halves(domains, names)
        tested.append(held)
        if released:
            seen = [name for earlier in steps[: index + 1] for name in earlier]
            divided.append((train, _halves(domains, seen)[1]))
        else:
            divided.append((train, np.concatenate(tested)))
    return divided


def _halves(domains: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(np.isin(domains, list(names)))
    np.random.RandomState(SHUFFLE_SEED).shuffle(rows)
    cut = int(TRAINING_SHARE * len(rows))
    return rows[:cut], rows[cut:]

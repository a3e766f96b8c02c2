"""Steps by domain: the training and test images of each step's cities."""

from collections.abc import Sequence

import numpy as np

from contseg.data.dataset import SegmentationDataset
from contseg.errors import ContsegError

SHUFFLE_SEED = 1
TRAINING_SHARE = 0.8


def domain_order(dataset: SegmentationDataset, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The domains in order of presentation.

    Raises:
        ContsegError: the dataset has no domains, or `wanted` contains an unknown domain or one twice.
    """
    if not dataset.domains:
        raise ContsegError(f"scenario.by: dataset '{dataset.name}' has no domains; use by: class")
    order = tuple(wanted or dataset.domains)
    for name in order:
        if name not in dataset.domains:
            known = ", ".join(dataset.domains)
            raise ContsegError(f"scenario.domains: '{name}' is not a domain of {dataset.name} ({known})")
        if order.count(name) > 1:
            raise ContsegError(f"scenario.domains: '{name}' occurs more than once")
    return order


def divide_pool(domains: np.ndarray, steps: Sequence[Sequence[str]], released: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of every step, for images that are not divided into training and test by domain.

    The images of a step's domains are shuffled (NumPy's legacy generator, seed 1); the first int(0.8 n) are for training
    (PLOP's Cityscapes protocol). The test images are

    * the held-out images of the steps so far, on which no step trains, or
    * `released`: the last fifth of the shuffled images of all domains so far, as published. From step 1 on this
      is a different shuffle, so about four in five of these images were trained on.

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

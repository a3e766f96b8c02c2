"""Generators seeded by (seed, step, ...), so that workers, ranks and restarts do not change random draws."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

ORDER, SAMPLE, MODEL, GROW, METHOD = range(1, 6)
"""Purposes of random draws. They are part of every seed, so that the streams of different purposes differ."""


def data_generator(purpose: int, *numbers: int) -> np.random.Generator:
    """A NumPy generator for (seed, step, epoch, position in the epoch)."""
    return np.random.default_rng([purpose, *numbers])


def derived_seed(purpose: int, *numbers: int) -> int:
    """A 63-bit seed for (seed, step, iteration, rank).

    Example:
        >>> derived_seed(MODEL, 1, 2, 3) == derived_seed(MODEL, 1, 2, 3) != derived_seed(GROW, 1, 2, 3)
        True
    """
    return int(np.random.SeedSequence([purpose, *numbers]).generate_state(1, np.uint64)[0] >> 1)


def torch_generator(purpose: int, *numbers: int) -> torch.Generator:
    """A PyTorch generator (CPU) for (seed, step, iteration)."""
    return torch.Generator().manual_seed(derived_seed(purpose, *numbers))


@contextmanager
def own_randomness() -> Iterator[None]:
    """Restore the caller's global PyTorch generators at the end of the block."""
    with torch.random.fork_rng():
        yield


def seed_model(*numbers: int) -> None:
    """Seed PyTorch's global generators, which layers such as dropout use, for (seed, step, iteration, rank)."""
    torch.manual_seed(derived_seed(MODEL, *numbers))

"""Where every draw comes from: generators derived from numbers, so that workers, ranks and restarts change nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

ORDER, SAMPLE, MODEL, GROW, METHOD = range(1, 6)
"""What a stream is for; part of its seed, so that streams never coincide."""


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
    """Leave the caller's global PyTorch generators as they were, whatever is seeded inside."""
    with torch.random.fork_rng():
        yield


def seed_model(*numbers: int) -> None:
    """Seed what layers such as dropout draw from, for (seed, step, iteration, rank)."""
    torch.manual_seed(derived_seed(MODEL, *numbers))

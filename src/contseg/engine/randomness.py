"""Generators seeded by (seed, step, ...), so that workers, ranks and restarts do not change random draws; determinism."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from contseg.errors import ContsegError

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


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """With `wanted`, PyTorch uses only deterministic algorithms inside the block.

    Raises:
        ContsegError: an operation has no deterministic algorithm on its device.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise ContsegError(
            f"training.deterministic: {operation} of PyTorch has no deterministic algorithm on this device; choose another"
            " network or method, or set training.deterministic=false"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


def seed_model(*numbers: int) -> None:
    """Seed PyTorch's global generators, which layers such as dropout use, for (seed, step, update, rank)."""
    torch.manual_seed(derived_seed(MODEL, *numbers))

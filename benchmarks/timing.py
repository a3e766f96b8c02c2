"""Timing two things against each other in one process."""

import time
from collections.abc import Callable

import torch

Clock = Callable[[], float]


def seconds(function: Callable[[], object], repeats: int = 5, clock: Clock = time.perf_counter) -> float:
    """The fastest of several runs after one to warm up."""
    function()
    best = float("inf")
    for _ in range(repeats):
        started = clock()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, clock() - started)
    return best


def ratio(
    ours: Callable[[], object],
    yardstick: Callable[[], object],
    repeats: int = 5,
    clock: Clock = time.perf_counter,
) -> tuple[float, float, float]:
    """(our seconds, the yardstick's, ours in multiples of the yardstick).

    Args:
        clock: `time.process_time` for work on one core, which then does not see what other programs do.
    """
    mine, theirs = seconds(ours, repeats, clock), seconds(yardstick, repeats, clock)
    return mine, theirs, mine / theirs

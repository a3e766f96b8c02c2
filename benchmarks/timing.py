"""Timing two things against each other in one process."""

import time
from collections.abc import Callable

import torch


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of several runs after one to warm up."""
    function()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def ratio(ours: Callable[[], object], yardstick: Callable[[], object], repeats: int = 5) -> tuple[float, float, float]:
    """(our seconds, the yardstick's, ours in multiples of the yardstick)."""
    mine, theirs = seconds(ours, repeats), seconds(yardstick, repeats)
    return mine, theirs, mine / theirs

"""Timing two things against each other in one process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

Clock = Callable[[], float]
Work = Callable[[], object]


@dataclass(frozen=True)
class Paired:
    """What pairs of runs took.

    Args:
        ours, yardstick: median seconds.
        ratio: median of ours / yardstick over the pairs.
        lowest, highest: of these ratios.
        pairs: their number.
    """

    ours: float
    yardstick: float
    ratio: float
    lowest: float
    highest: float
    pairs: int


def timed(work: Work, clock: Clock = time.perf_counter) -> float:
    """Seconds of one run, with what it left to a GPU."""
    started = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def seconds(function: Work, repeats: int = 5, clock: Clock = time.perf_counter) -> float:
    """The fastest of several runs after one to warm up."""
    timed(function)
    return min(timed(function, clock) for _ in range(repeats))


def in_pairs(ours: Work, yardstick: Work, pairs: int = 5, clock: Clock = time.perf_counter, warm: bool = True) -> Paired:
    """Run both in turn, after one run of each to warm up; every second pair begins with the yardstick.

    What slows the machine for a while slows both halves of a pair, and an odd pair does not move the median.

    Args:
        clock: `time.process_time` for work on one core, which then does not see what other programs do.
        warm: whether each runs once before.
    """
    if warm:
        timed(ours)
        timed(yardstick)
    found = []
    for number in range(pairs):
        if number % 2:
            theirs, mine = timed(yardstick, clock), timed(ours, clock)
        else:
            mine, theirs = timed(ours, clock), timed(yardstick, clock)
        found.append((mine, theirs))
    ratios = [mine / theirs for mine, theirs in found]
    return Paired(
        median(mine for mine, _ in found),
        median(theirs for _, theirs in found),
        median(ratios),
        min(ratios),
        max(ratios),
        pairs,
    )


def ratio(ours: Work, yardstick: Work, repeats: int = 5, clock: Clock = time.perf_counter) -> tuple[float, float, float]:
    """(our seconds, the yardstick's, ours in multiples of the yardstick), medians of `repeats` pairs."""
    found = in_pairs(ours, yardstick, repeats, clock)
    return found.ours, found.yardstick, found.ratio

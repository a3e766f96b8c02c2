"""Statistics over the runs of a sweep: spread over seeds and class orders, worst order, paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Values = Mapping[tuple[int, str], float]
"""Seed and class order of a run to its value."""

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_PAIRS = 6
"""Pairs for a verdict: with fewer, equal methods have differences of one sign in more than 5 % of all cases."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviations over runs.

    Attributes:
        mean: over all runs.
        over_seeds: standard deviation within the class orders, pooled over them; None if no order has two seeds.
        over_orders: standard deviation (n - 1) of the means of the orders; None for a single order.
        seeds, orders, runs: how many there are.
    """

    mean: float
    over_seeds: float | None
    over_orders: float | None
    seeds: int
    orders: int
    runs: int


def spread_of(values: Values) -> Spread | None:
    """Mean and standard deviations; None without values.

    Example:
        >>> spread_of({(0, "a"): 1.0, (1, "a"): 3.0, (0, "b"): 4.0, (1, "b"): 6.0})
        Spread(mean=3.5, over_seeds=1.4142135623730951, over_orders=2.1213203435596424, seeds=2, orders=2, runs=4)
    """
    if not values:
        return None
    groups = [np.array(group) for group in _by_order(values).values()]
    freedom = sum(len(group) - 1 for group in groups)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return Spread(
        mean=float(np.mean(list(values.values()))),
        over_seeds=float(np.sqrt(within / freedom)) if freedom else None,
        over_orders=float(np.std([group.mean() for group in groups], ddof=1)) if len(groups) > 1 else None,
        seeds=len({seed for seed, _ in values}),
        orders=len(groups),
        runs=len(values),
    )


def worst_order(values: Values) -> tuple[str, float] | None:
    """The class order with the lowest mean over its seeds, and that mean; None for fewer than two orders.

    Example:
        >>> worst_order({(0, "a"): 1.0, (1, "a"): 3.0, (0, "b"): 1.5})
        ('b', 1.5)
    """
    means = {order: float(np.mean(group)) for order, group in _by_order(values).items()}
    if len(means) < 2:
        return None
    order = min(means, key=lambda one: means[one])
    return order, means[order]


def share_of(values: Values, reference: Values) -> tuple[float, int] | None:
    """The mean as a share of the mean of a reference on the same seeds and orders, and the number of pairs.

    None without pairs, or if the mean of the reference is 0.

    Example:
        >>> share_of({(0, "a"): 30.0, (1, "a"): 50.0}, {(0, "a"): 60.0})
        (0.5, 1)
    """
    keys = [key for key in values if key in reference]
    total = sum(reference[key] for key in keys)
    return (sum(values[key] for key in keys) / total, len(keys)) if total else None


@dataclass(frozen=True)
class Paired:
    """The mean difference of two methods on the same seeds and orders.

    Attributes:
        difference: mean over the pairs.
        low, high: bootstrap interval of the mean; None for a single pair.
        pairs: how many runs of the two have the same seed and order.
    """

    difference: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def verdict(self) -> str:
        """`better` or `worse` if the interval excludes 0, else `undecided`; `too few pairs` below `FEWEST_PAIRS`.

        Example:
            >>> Paired(1.0, 0.5, 1.5, 9).verdict, Paired(1.0, -0.5, 2.5, 9).verdict, Paired(1.0, 0.5, 1.5, 3).verdict
            ('better', 'undecided', 'too few pairs')
        """
        if self.pairs < FEWEST_PAIRS or self.low is None or self.high is None:
            return "too few pairs"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "undecided"


def paired(values: Values, others: Values, generator: np.random.Generator, resamples: int = RESAMPLES) -> Paired | None:
    """The differences `values - others` of all seeds and orders that both have; None if there are none.

    Args:
        generator: of the bootstrap.
        resamples: of the bootstrap.
    """
    found = [values[key] - others[key] for key in sorted(values) if key in others]
    if not found:
        return None
    low, high = bootstrap(found, generator, resamples) if len(found) > 1 else (None, None)
    return Paired(float(np.mean(found)), low, high, len(found))


def bootstrap(
    values: Sequence[float], generator: np.random.Generator, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """The percentile interval of the mean.

    Args:
        resamples: number of samples that are drawn with replacement.
        level: share of their means within the interval.

    Example:
        >>> bootstrap([2.0, 2.0, 2.0], np.random.default_rng(0))
        (2.0, 2.0)
    """
    sample = np.asarray(values)
    means = sample[generator.integers(0, len(sample), (resamples, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _by_order(values: Values) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for (_, order), value in values.items():
        groups.setdefault(order, []).append(value)
    return groups

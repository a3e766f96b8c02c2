"""Statistics over the runs of a sweep, against NumPy and SciPy."""

import numpy as np
import pytest
from scipy import stats

from contseg.sweeps.aggregate import FEWEST_PAIRS, Paired, bootstrap, paired, share_of, spread_of, worst_order

ORDERS = ("natural", "seed:1", "seed:2")


@pytest.fixture
def table() -> np.ndarray:
    """Values of 4 seeds (rows) and 3 orders."""
    return np.random.default_rng(3).normal([30, 40, 35], [1, 2, 3], (4, 3))


def values(table: np.ndarray) -> dict[tuple[int, str], float]:
    return {(seed, order): float(table[seed, place]) for seed in range(len(table)) for place, order in enumerate(ORDERS)}


def test_deviations_over_seeds_and_over_orders_are_those_of_the_table(table):
    found = spread_of(values(table))
    assert (found.seeds, found.orders, found.runs) == (4, 3, 12)
    assert found.mean == pytest.approx(table.mean())
    assert found.over_seeds == pytest.approx(np.sqrt(table.var(axis=0, ddof=1).mean()))
    assert found.over_orders == pytest.approx(table.mean(axis=0).std(ddof=1))


def test_they_are_those_of_the_analysis_of_variance_if_runs_are_missing(table):
    kept = {key: value for key, value in values(table).items() if key not in ((0, "natural"), (3, "seed:2"), (2, "seed:2"))}
    groups = [[value for (_, order), value in kept.items() if order == name] for name in ORDERS]
    within = spread_of(kept).over_seeds ** 2
    between = sum(len(group) * (np.mean(group) - np.mean(list(kept.values()))) ** 2 for group in groups) / 2
    assert stats.f_oneway(*groups).statistic == pytest.approx(between / within)


def test_one_seed_has_no_deviation_over_seeds_and_one_order_none_over_orders():
    assert spread_of({(0, "a"): 1.0, (0, "b"): 2.0}).over_seeds is None
    assert spread_of({(0, "a"): 1.0, (1, "a"): 2.0}).over_orders is None
    assert spread_of({}) is None


def test_the_worst_order_has_the_lowest_mean_not_the_lowest_run(table):
    means = table.mean(axis=0)
    assert worst_order(values(table)) == (ORDERS[means.argmin()], pytest.approx(means.min()))
    assert worst_order({(0, "a"): 1.0, (1, "a"): 9.0, (0, "b"): 4.0}) == ("b", 4.0)
    assert worst_order({(0, "a"): 1.0}) is None


def test_the_share_of_a_reference_is_of_the_same_seeds_and_orders():
    ours, joint = {(0, "a"): 30.0, (1, "a"): 20.0, (2, "a"): 99.0}, {(0, "a"): 60.0, (1, "a"): 40.0, (0, "b"): 1.0}
    assert share_of(ours, joint) == (0.5, 2)
    assert share_of(ours, {(7, "a"): 1.0}) is None
    assert share_of(ours, {(0, "a"): 0.0}) is None


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_is_the_percentile_bootstrap_of_scipy(level):
    sample = np.random.default_rng(1).normal(1, 2, 9)
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=2000, confidence_level=level, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert bootstrap(list(sample), np.random.default_rng(5), 2000, level) == pytest.approx((theirs.low, theirs.high))


def test_the_interval_covers_the_mean_about_as_often_as_stated():
    draws = np.random.default_rng(2)
    inside = [low <= 1 <= high for low, high in (bootstrap(draws.normal(1, 2, 30), draws, 400) for _ in range(300))]
    assert 0.9 <= np.mean(inside) <= 0.97


def test_differences_are_of_the_same_seeds_and_orders_whatever_their_sequence(table):
    ours = values(table)
    theirs = {key: value - 1.5 for key, value in reversed(list(ours.items())) if key[0] < 3} | {(9, "natural"): 1000.0}
    found = paired(ours, theirs, np.random.default_rng(0))
    assert (found.pairs, found.verdict) == (9, "better")
    assert (found.difference, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert paired(ours, {(9, "natural"): 1.0}, np.random.default_rng(0)) is None


def test_one_pair_has_no_interval():
    assert paired({(0, "a"): 2.0}, {(0, "a"): 1.0}, np.random.default_rng(0)) == Paired(1.0, None, None, 1)


@pytest.mark.parametrize(
    ("low", "high", "pairs", "verdict"),
    [
        (0.1, 2.0, 9, "better"),
        (-2.0, -0.1, 9, "worse"),
        (-0.1, 2.0, 9, "undecided"),
        (0.0, 2.0, 9, "undecided"),
        (-2.0, 0.0, 9, "undecided"),
        (0.1, 2.0, FEWEST_PAIRS - 1, "too few pairs"),
    ],
)
def test_nothing_is_better_if_the_interval_contains_zero_or_pairs_are_few(low, high, pairs, verdict):
    assert Paired((low + high) / 2, low, high, pairs).verdict == verdict


def test_fewer_pairs_could_not_decide_a_sign_test():
    p_values = [stats.binomtest(0, pairs).pvalue for pairs in (FEWEST_PAIRS - 1, FEWEST_PAIRS)]
    assert p_values[0] > 0.05 >= p_values[1]

"""Learning rates over a step."""

import pytest

from contseg.engine.options import TrainingOptions
from contseg.engine.schedule import learning_rate, lr_multiple
from tests.engine.runs import learn, lines, tiny_recipe


def multiples(updates: int, **options) -> list[float]:
    return [lr_multiple(TrainingOptions(**options), update, updates) for update in range(updates)]


def test_poly_falls_from_one_as_a_power_of_what_is_left():
    assert multiples(4, schedule="poly", power=2.0) == [1.0, 0.75**2, 0.5**2, 0.25**2]


def test_constant_stays():
    assert multiples(3, schedule="constant") == [1.0, 1.0, 1.0]


def test_step_multiplies_by_gamma_at_each_milestone():
    rates = multiples(10, schedule="step", milestones=[0.5, 0.8], gamma=0.1)
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_step_multiplies_by_gamma_after_every_so_many_updates():
    options = TrainingOptions(schedule="step", milestone_every=3, gamma=0.5)
    assert [lr_multiple(options, update, 8) for update in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_warm_poly_rises_linearly_and_then_is_poly():
    warm = multiples(20, schedule="warm-poly", warmup=0.2)
    poly = multiples(20, schedule="poly")
    assert [one / other for one, other in zip(warm, poly, strict=True)] == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 17)


def test_poly_ends_at_the_floor():
    rates = multiples(1000, schedule="poly", floor=0.01)
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.01, abs=0.003)
    assert min(rates) > 0.01
    assert rates[500] == pytest.approx(0.99 * 0.5**0.9 + 0.01)


def test_warm_poly_rises_over_a_number_of_updates_from_a_share_of_poly():
    options = {"power": 2.0, "floor": 0.1}
    warm = multiples(20, schedule="warm-poly", warmup_updates=4, warmup_ratio=0.2, **options)
    poly = multiples(20, schedule="poly", **options)
    assert [one / other for one, other in zip(warm, poly, strict=True)] == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 16)


def test_a_rise_longer_than_the_step_is_cut_off_by_its_end():
    warm = multiples(3, schedule="warm-poly", warmup_updates=1500, power=1.0)
    assert warm == pytest.approx([1e-6, (2 / 3) / 1500, (1 / 3) * 2 / 1500], rel=1e-2)


@pytest.mark.parametrize("floor", [0.0, 0.01])
@pytest.mark.parametrize("schedule", ["poly", "warm-poly", "step", "constant"])
@pytest.mark.parametrize("updates", [1, 2, 7])
def test_every_update_learns_something(schedule, updates, floor):
    assert all(0 < multiple <= 1 for multiple in multiples(updates, schedule=schedule, floor=floor))


def test_rates_and_epochs_are_those_of_the_step():
    options = TrainingOptions(epochs=[3, 2], lr=0.1, lr_later=0.02)
    assert [options.epochs_of(step) for step in range(4)] == [3, 2, 2, 2]
    assert [options.lr_of(step) for step in range(3)] == [0.1, 0.02, 0.02]


def test_a_run_follows_the_schedule_anew_in_every_step(tmp_path):
    recipe = tiny_recipe("finetune", "training.epochs=[2, 1]", "training.lr=0.01", "training.lr_later=0.002")
    found = [line["lr"] for line in lines(learn(tmp_path / "run", recipe), "epoch")]
    options = recipe.training
    last_updates = [(0.01, 3, 8), (0.01, 7, 8), (0.002, 3, 4)]  # four updates an epoch
    assert found == pytest.approx([lr * lr_multiple(options, update, updates) for lr, update, updates in last_updates])


def test_no_rate_falls_below_the_least_one():
    options = TrainingOptions(lr=0.01, lr_later=0.02, lr_min=1e-4)
    assert learning_rate(options, 0, 0, 10) == 0.01
    assert learning_rate(options, 3, 0, 10) == 0.02
    assert learning_rate(options, 0, 5, 10, factor=1e-3) == 1e-4
    assert learning_rate(options, 0, 9, 10) > 1e-4
    assert learning_rate(options, 0, 5, 10, factor=0.0) == 0

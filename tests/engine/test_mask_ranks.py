"""Two processes learn masks as one process with the same global batch does: points, counts, replay and stored queries."""

import pytest

from contseg.engine.run import Run
from tests.engine.runs import DOUBLES, learn, lines
from tests.engine.test_mask_runs import mask_recipe
from tests.engine.test_ranks import assert_like

SHORT = ["training.epochs=1", "training.lr=0.0003", "training.lr_later=0.0001"]
NAMES = ["finetune-eomt", "comformer", "balconpas", "simcis", "mib-masks", "plop-masks", "frozen-eomt"]


def both(tmp_path, name: str, *overrides: str) -> tuple[Run, Run]:
    """The run of two processes and that of one, in float64."""
    method = DOUBLES[name.removesuffix("-eomt")]()
    found = [
        learn(tmp_path / f"{count}", mask_recipe(name, *SHORT, *overrides, f"training.devices={count}"), method=method)
        for count in (2, 1)
    ]
    return found[0], found[1]


def assert_alike(two: Run, one: Run) -> None:
    assert_like(two, one)
    for left, right in zip(lines(two, "epoch"), lines(one, "epoch"), strict=True):
        assert left["terms"] == pytest.approx(right["terms"], rel=1e-6)


@pytest.mark.slow
class TestTwoProcesses:
    """Compared in float64, as in test_ranks.py."""

    @pytest.mark.parametrize("name", NAMES)
    def test_learn_what_one_learns(self, tmp_path, name):
        two, one = both(tmp_path, name, *["scenario.memory.size=6"] * (name == "balconpas"))
        assert_alike(two, one)
        if name == "simcis":
            stored = one.load_state(1).method
            assert stored["virtual_filled"].sum() > 0
            assert stored["virtual_weights"].std() > 0
        if name == "balconpas":
            assert "tokens" in lines(one, "epoch")[-1]["terms"]

"""Parameter groups, and learning rates of parts."""

import pytest
import torch

from contseg.engine.optimiser import make_optimiser
from contseg.engine.options import TrainingOptions
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(NetworkOptions(backbone="resnet18", width=8, head_width=16), [3])


def factors(optimiser: torch.optim.Optimizer) -> dict[torch.Tensor, float]:
    return {parameter: group["lr_factor"] for group in optimiser.param_groups for parameter in group["params"]}


def test_every_parameter_is_optimised_once(segmenter):
    optimiser = make_optimiser([{"params": list(segmenter.parameters())}], segmenter, TrainingOptions())
    optimised = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    assert len(optimised) == len(set(optimised)) == len(list(segmenter.parameters()))


def test_parts_learn_at_rates_of_their_own(segmenter):
    options = TrainingOptions(lr_factors={"backbone": 0.1, "classifier": 10.0})
    found = factors(make_optimiser([{"params": list(segmenter.parameters())}], segmenter, options))
    expected = {"backbone": 0.1, "head": 1.0, "classifier": 10.0}
    for name, parameter in segmenter.named_parameters():
        assert found[parameter] == expected[name.split(".")[0]], name


def test_the_factor_of_a_group_multiplies_that_of_the_part(segmenter):
    groups = [
        {"params": list(segmenter.backbone.parameters()), "lr_factor": 0.5},
        {"params": list(segmenter.classifier.parameters()), "lr_factor": 3.0, "weight_decay": 0.0},
    ]
    optimiser = make_optimiser(groups, segmenter, TrainingOptions(lr_factors={"backbone": 0.1}, weight_decay=0.2))
    assert sorted(set(factors(optimiser).values())) == pytest.approx([0.05, 3.0])
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.2, 0.0]  # other keys go to the optimiser


def test_the_options_reach_the_optimiser(segmenter):
    options = TrainingOptions(lr=0.3, momentum=0.5, nesterov=True, weight_decay=0.01)
    (group,) = make_optimiser([{"params": list(segmenter.parameters())}], segmenter, options).param_groups
    assert {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.3, "momentum": 0.5, "nesterov": True, "weight_decay": 0.01,
    }  # fmt: skip


def test_nesterov_without_momentum_is_plain_descent(segmenter):
    options = TrainingOptions(momentum=0.0, nesterov=True)
    (group,) = make_optimiser([{"params": list(segmenter.parameters())}], segmenter, options).param_groups
    assert not group["nesterov"]

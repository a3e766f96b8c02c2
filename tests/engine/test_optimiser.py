"""Parameter groups, and learning rates of parts."""

import pytest
import torch

from contseg.engine.optimiser import OnePassSGD, make_optimiser
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


def test_they_may_differ_between_the_first_step_and_later_ones(segmenter):
    groups = [{"params": list(segmenter.parameters())}]
    one = next(segmenter.backbone.parameters())
    both = TrainingOptions(lr_factors={"backbone": 0.5}, lr_factors_later={"backbone": 0.1})
    assert [factors(make_optimiser(groups, segmenter, both, step))[one] for step in (0, 1, 2)] == [0.5, 0.1, 0.1]
    same = TrainingOptions(lr_factors={"backbone": 0.5})
    assert factors(make_optimiser(groups, segmenter, same, 1))[one] == 0.5


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


def descend(kind: type[torch.optim.SGD], options: dict, spoilt: str = "") -> list[torch.Tensor]:
    """Weights of several sizes after four updates with the same random gradients; `spoilt` have another layout."""
    torch.manual_seed(0)
    sizes = [(64, 32, 3, 3), (21, 32, 1, 1), (5, 7, 3, 3), (64,), (21,), (1000,)]
    weights = [torch.nn.Parameter(torch.randn(size)) for size in sizes]
    optimiser = kind(weights, lr=0.1, **options)
    for number in range(4):
        for place, weight in enumerate(weights):
            weight.grad = None if number == 0 and place == 3 else torch.randn(weight.shape)  # a weight may come later
        if spoilt == "gradient":
            weights[0].grad = weights[0].grad.to(memory_format=torch.channels_last)
        elif spoilt == "momentum" and number:
            state = optimiser.state[weights[0]]
            state["momentum_buffer"] = state["momentum_buffer"].to(memory_format=torch.channels_last)
        optimiser.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize(
    "options",
    [{"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}, {"momentum": 0.5}, {"weight_decay": 0.1}],
    ids=["nesterov", "momentum", "plain"],
)
@pytest.mark.parametrize("spoilt", ["", "gradient", "momentum"])
def test_one_pass_over_the_weights_changes_no_bit(options, spoilt):
    if spoilt == "momentum" and "momentum" not in options:
        pytest.skip("there is no momentum")
    plain, ours = descend(torch.optim.SGD, options), descend(OnePassSGD, options, spoilt)
    assert all(torch.equal(one, other) for one, other in zip(plain, ours, strict=True))


def test_most_weights_are_updated_in_one_pass(segmenter, monkeypatch):
    groups = [{"params": list(segmenter.parameters())}]
    optimiser = make_optimiser(groups, segmenter, TrainingOptions())
    updated = []
    monkeypatch.setattr("contseg.engine.optimiser.sgd", lambda weights, *_, **__: updated.extend(weights))
    for _ in range(2):
        for weight in segmenter.parameters():
            weight.grad = torch.zeros_like(weight)
        optimiser.step()
    assert sum(weight.numel() for weight in updated) > 0.9 * sum(weight.numel() for weight in segmenter.parameters())
    assert all(weight.grad is not None for weight in segmenter.parameters())


SWIN_RULES = ["absolute_pos_embed", "relative_position_bias_table", "norm"]


def test_adamw_gets_its_own_options_and_not_those_of_sgd(segmenter):
    options = TrainingOptions(optimiser="adamw", lr=6e-5, betas=[0.8, 0.99], weight_decay=0.01)
    optimiser = make_optimiser([{"params": list(segmenter.parameters())}], segmenter, options)
    assert isinstance(optimiser, torch.optim.AdamW)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (6e-5, (0.8, 0.99), 0.01)
    assert "momentum" not in group


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_parameters_are_spared_decay_by_any_part_of_their_name(segmenter, optimiser):
    options = TrainingOptions(optimiser=optimiser, weight_decay=0.2, no_decay=["bn", "bias"], lr_factors={"head": 2.0})
    groups = make_optimiser([{"params": list(segmenter.parameters())}], segmenter, options).param_groups
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    rates = {parameter: group["lr_factor"] for group in groups for parameter in group["params"]}
    spared = set()
    for name, parameter in segmenter.named_parameters():
        assert decay[parameter] == (0.0 if "bn" in name or "bias" in name else 0.2), name
        assert rates[parameter] == (2.0 if name.startswith("head.") else 1.0), name
        spared.add(decay[parameter])
    assert spared == {0.0, 0.2}


def test_the_rules_of_swin_spare_positions_and_norms_but_neither_biases_nor_norms_that_are_numbered():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Module()
            self.backbone.norm1 = torch.nn.LayerNorm(2)
            self.backbone.relative_position_bias_table = torch.nn.Parameter(torch.zeros(2))
            self.backbone.absolute_pos_embed = torch.nn.Parameter(torch.zeros(2))
            self.backbone.linear = torch.nn.Linear(2, 2)
            self.head = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), torch.nn.BatchNorm2d(2))

    network = Network()
    options = TrainingOptions(optimiser="adamw", weight_decay=0.01, no_decay=SWIN_RULES)
    groups = make_optimiser([{"params": list(network.parameters())}], network, options).param_groups
    decayed = {parameter for group in groups if group["weight_decay"] for parameter in group["params"]}
    names = {name for name, parameter in network.named_parameters() if parameter in decayed}
    assert names == {
        "backbone.linear.weight",
        "backbone.linear.bias",
        *(f"head.{n}.{k}" for n in (0, 1) for k in ("weight", "bias")),
    }


def test_a_group_that_has_a_decay_of_its_own_is_spared_too(segmenter):
    groups = [{"params": list(segmenter.parameters()), "weight_decay": 0.5}]
    found = make_optimiser(groups, segmenter, TrainingOptions(no_decay=["bias"])).param_groups
    assert sorted(group["weight_decay"] for group in found) == [0.0, 0.5]

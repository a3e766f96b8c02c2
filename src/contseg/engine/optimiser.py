"""The optimiser of a step."""

from typing import Any

import torch

from contseg.engine.devices import precision_of
from contseg.engine.options import TrainingOptions
from contseg.models.segmenter import Segmenter


def make_optimiser(
    groups: list[dict[str, Any]], segmenter: Segmenter, options: TrainingOptions, step: int = 0
) -> torch.optim.Optimizer:
    """SGD or AdamW over the method's parameter groups, each split by learning-rate factor and by weight decay.

    Every group has an `lr_factor` that multiplies the scheduled rate.

    SGD is PyTorch's fused one, which reads the weights once and rounds like the others; with gradient scaling it is not
    fused, as Fabric only unscales gradients of the others. AdamW is not fused, as its fused kernel rounds differently.

    Args:
        groups: from `Method.parameter_groups`.
        step: selects `lr_factors` (step 0) or `lr_factors_later`.
    """
    factors = options.lr_factors_of(step)
    name_of = {parameter: name for name, parameter in segmenter.named_parameters()}
    split = []
    for group in groups:
        rest = {key: value for key, value in group.items() if key not in ("params", "lr_factor")}
        by_kind: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            name = name_of[parameter]
            factor = group.get("lr_factor", 1.0) * factors.get(name.split(".")[0], 1.0)  # type: ignore[call-overload]
            no_decay = any(part in name for part in options.no_decay)
            by_kind.setdefault((factor, no_decay), []).append(parameter)
        for (factor, no_decay), params in by_kind.items():
            split.append({"params": params, "lr_factor": factor, **rest, **({"weight_decay": 0.0} if no_decay else {})})
    if options.optimiser == "adamw":
        betas = (options.betas[0], options.betas[1])
        return torch.optim.AdamW(split, lr=options.lr, betas=betas, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        split,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov and options.momentum > 0,
        weight_decay=options.weight_decay,
        fused=precision_of(options) != "16-mixed" or None,  # False would also exclude the grouped kernels
    )


@torch.no_grad()
def align_layouts(optimiser: torch.optim.Optimizer) -> None:
    """Give gradients and momenta the memory layout of their weights: a fused kernel pairs elements by their place in memory.

    They have it already, unless a method replaced a gradient, or the state is of a run with another `channels_last`.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last))
        >>> weight.grad = torch.ones(4, 3, 2, 2)
        >>> align_layouts(torch.optim.SGD([weight], fused=True))
        >>> weight.grad.stride() == weight.stride()
        True
    """
    for group in optimiser.param_groups:
        if not group.get("fused"):
            continue
        for weight in group["params"]:
            if weight.grad is not None and weight.grad.stride() != weight.stride():
                weight.grad = torch.empty_like(weight).copy_(weight.grad)
            state = optimiser.state.get(weight, {})
            momentum = state.get("momentum_buffer")
            if momentum is not None and momentum.stride() != weight.stride():
                state["momentum_buffer"] = torch.empty_like(weight).copy_(momentum)

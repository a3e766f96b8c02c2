"""The optimiser of a step."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.sgd import sgd

from contseg.engine.options import TrainingOptions
from contseg.errors import ContsegError
from contseg.models.segmenter import Segmenter

VECTORS = 32
"""Elements that PyTorch's kernels for CPUs process together, at most; what is left over may be rounded differently."""


class OnePassSGD(torch.optim.SGD):
    """`torch.optim.SGD` that reads most weights once per update on a CPU, not six times, and changes no bit of the result.

    PyTorch's fused kernel rounds like its other ones except in the last elements of a weight, so it updates the weights that
    divide evenly. It pairs elements by their place in memory, so their gradients must have the layout of the weights.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(64))
        >>> optimiser = OnePassSGD([weight], lr=0.5, momentum=0.9)
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(64)
        ...     optimiser.step()
        >>> round(weight[0].item(), 4)
        -0.45
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights once."""
        done = [] if closure else [weight for group in self.param_groups for weight in self._at_once(group)]
        gradients = [weight.grad for weight in done]
        for weight in done:
            weight.grad = None
        loss = super().step(closure)
        for weight, gradient in zip(done, gradients, strict=True):
            weight.grad = gradient
        return loss

    @torch.no_grad()
    def _at_once(self, group: dict[str, Any]) -> list[torch.nn.Parameter]:
        """Update what the fused kernel can; returns these weights. The first update, which makes the momenta, is not one."""
        weights = [weight for weight in group["params"] if self._is_whole(weight)]
        if weights:
            sgd(
                weights,
                [weight.grad for weight in weights],
                [self.state[weight]["momentum_buffer"] for weight in weights],
                fused=True,
                **{key: group[key] for key in ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")},
            )
        return weights

    def _is_whole(self, weight: torch.nn.Parameter) -> bool:
        momentum = self.state.get(weight, {}).get("momentum_buffer")
        if momentum is None or weight.grad is None or weight.device.type != "cpu" or weight.numel() % VECTORS:
            return False
        return weight.stride() == weight.grad.stride() == momentum.stride() and not weight.grad.is_sparse


def make_optimiser(
    groups: list[dict[str, Any]], segmenter: Segmenter, options: TrainingOptions, step: int = 0
) -> torch.optim.Optimizer:
    """SGD or AdamW over the method's parameter groups, each split by learning-rate factor and by weight decay.

    Every group has an `lr_factor` that multiplies the scheduled rate, and with the schedule `warm-twice` `late`: whether it
    belongs to the backbone.

    Args:
        groups: from `Method.parameter_groups`.
        step: selects `lr_factors` (step 0) or `lr_factors_later`.

    Raises:
        ContsegError: `layer_decay` is set, and the backbone has no blocks in an order.
    """
    factors, twice = options.lr_factors_of(step), options.schedule == "warm-twice"
    name_of = {parameter: name for name, parameter in segmenter.named_parameters()}
    split = []
    for group in groups:
        rest = {key: value for key, value in group.items() if key not in ("params", "lr_factor")}
        by_kind: dict[tuple[float, bool, bool], list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            name = name_of[parameter]
            factor = group.get("lr_factor", 1.0) * factors.get(name.split(".")[0], 1.0)  # type: ignore[call-overload]
            factor *= layer_factor(segmenter, name, options)
            no_decay = any(part in name for part in options.no_decay)
            late = twice and name.startswith("backbone.")
            by_kind.setdefault((factor, no_decay, late), []).append(parameter)
        for (factor, no_decay, late), params in by_kind.items():
            kept = {"weight_decay": 0.0} if no_decay else {}
            split.append({"params": params, "lr_factor": factor, **rest, **kept, **({"late": late} if twice else {})})
    if options.optimiser == "adamw":
        betas = (options.betas[0], options.betas[1])
        return torch.optim.AdamW(split, lr=options.lr, betas=betas, weight_decay=options.weight_decay)
    return OnePassSGD(
        split,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov and options.momentum > 0,
        weight_decay=options.weight_decay,
    )


def layer_factor(segmenter: Segmenter, name: str, options: TrainingOptions) -> float:
    """The multiple of the learning rate of a parameter by `layer_decay`: that of its block.

    Args:
        name: of the parameter in the segmenter.

    Raises:
        ContsegError: the backbone has no blocks in an order.
    """
    part, _, rest = name.partition(".")
    if options.layer_decay == 1 or part != "backbone":
        return 1.0
    above = segmenter.backbone.layers_above(rest)
    if above is None:
        raise ContsegError(
            f"training.layer_decay: {segmenter.options.backbone.name} has no blocks with rates of their own; remove it,"
            " or use a backbone of vision transformer blocks, such as dinov2_reg_small"
        )
    return 1.0 if above < options.layer_decay_spares else options.layer_decay**above

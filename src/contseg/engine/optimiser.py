"""The optimiser of a step."""

from typing import Any

import torch

from contseg.engine.options import TrainingOptions
from contseg.models.segmenter import Segmenter


def make_optimiser(
    groups: list[dict[str, Any]], segmenter: Segmenter, options: TrainingOptions, step: int = 0
) -> torch.optim.Optimizer:
    """SGD or AdamW over the method's parameter groups, each divided by the parts of the segmenter that learn at rates of
    their own and by what is not decayed.

    Every group carries `lr_factor`, by which the schedule's rate is multiplied.

    Args:
        groups: from `Method.parameter_groups`.
        step: the parts' rates may differ between step 0 and later ones.
    """
    factors = options.lr_factors_of(step)
    name_of = {parameter: name for name, parameter in segmenter.named_parameters()}
    divided = []
    for group in groups:
        rest = {key: value for key, value in group.items() if key not in ("params", "lr_factor")}
        alike: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            name = name_of[parameter]
            factor = group.get("lr_factor", 1.0) * factors.get(name.split(".")[0], 1.0)  # type: ignore[call-overload]
            spared = any(part in name for part in options.no_decay)
            alike.setdefault((factor, spared), []).append(parameter)
        for (factor, spared), params in alike.items():
            divided.append({"params": params, "lr_factor": factor, **rest, **({"weight_decay": 0.0} if spared else {})})
    if options.optimiser == "adamw":
        betas = (options.betas[0], options.betas[1])
        return torch.optim.AdamW(divided, lr=options.lr, betas=betas, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        divided,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov and options.momentum > 0,
        weight_decay=options.weight_decay,
    )

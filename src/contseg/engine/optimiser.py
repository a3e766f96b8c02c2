"""The optimiser of a step."""

from typing import Any

import torch

from contseg.engine.options import TrainingOptions
from contseg.models.segmenter import Segmenter


def make_optimiser(groups: list[dict[str, Any]], segmenter: Segmenter, options: TrainingOptions) -> torch.optim.SGD:
    """SGD over the method's parameter groups, each divided by the parts of the segmenter that learn at rates of their own.

    Every group carries `lr_factor`, by which the schedule's rate is multiplied.

    Args:
        groups: from `Method.parameter_groups`.
    """
    part_of = {parameter: name.split(".")[0] for name, parameter in segmenter.named_parameters()}
    divided = []
    for group in groups:
        rest = {key: value for key, value in group.items() if key not in ("params", "lr_factor")}
        factors: dict[float, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            factor = group.get("lr_factor", 1.0) * options.lr_factors.get(part_of[parameter], 1.0)  # type: ignore[call-overload]
            factors.setdefault(factor, []).append(parameter)
        divided += [{"params": params, "lr_factor": factor, **rest} for factor, params in factors.items()]
    return torch.optim.SGD(
        divided,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov and options.momentum > 0,
        weight_decay=options.weight_decay,
    )

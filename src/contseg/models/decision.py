"""Decision rules: from the logits of a network to scores of the classes."""

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from contseg.models.names import Decision

RULES: dict[Decision, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits_BKHW: logits_BKHW.softmax(dim=1),
    "sigmoid": lambda logits_BKHW: logits_BKHW.sigmoid(),
}
"""Rule: logits (B, K, H, W) to the scores of all outputs (B, K, H, W)."""

assert set(RULES) == set(get_args(Decision))


def class_scores(logits_BKHW: Tensor, decision: Decision, unknown: bool = False) -> Tensor:
    """Scores of the classes, (B, K, H, W); the arg max is the prediction.

    Args:
        decision: `softmax`: classes compete; `sigmoid`: classes are independent.
        unknown: the first output is "unknown"; its score is added to background's, which is next, so the result is
            (B, K - 1, H, W).

    Example:
        >>> logits = torch.tensor([0.0, 1.0, 1.5]).view(1, 3, 1, 1)
        >>> class_scores(logits, "softmax").argmax(dim=1).item(), class_scores(logits, "softmax", True).argmax(dim=1).item()
        (2, 1)
    """
    scores = RULES[decision](logits_BKHW)
    if not unknown:
        return scores
    return torch.cat([scores[:, :1] + scores[:, 1:2], scores[:, 2:]], dim=1)


def lowest_tie(greatest: Tensor, decision: Decision) -> Tensor:
    """A bound: outputs with lower logits have lower scores than the output with the greatest logit, also when rounded.

    The bound is at least four times as far from the greatest logit as rounding in float32 requires.

    Args:
        greatest: the greatest logits, of any shape.

    Example:
        >>> lowest_tie(torch.tensor(0.0), "softmax").item(), lowest_tie(torch.tensor(30.0), "sigmoid").item()
        (-9.999999974752427e-07, 12.0)
    """
    if decision == "softmax":  # score / best score = exp(logit - greatest), which is 1 when rounded above -2**-23
        return greatest - 1e-6
    # the slope of log(sigmoid) is 1 - sigmoid = 1 / (1 + exp(logit)); a sigmoid above 16 is 1, below -88 it is 0
    bound = (greatest - 2.0**-20 * (1 + greatest.clamp_max(12).exp())).clamp_max(12)
    return bound.masked_fill(greatest < -80, -torch.inf)

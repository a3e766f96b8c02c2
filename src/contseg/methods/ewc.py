"""EWC: Elastic Weight Consolidation (Kirkpatrick et al., PNAS 2017), as run in the code base of MiB."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contseg.losses.regularisers import normalise, running_fisher
from contseg.methods.method import StepContext
from contseg.methods.weight_penalty import Learning, WeightPenalty, fisher_of_pass
from contseg.options import Share, Weight


@dataclass(frozen=True)
class EWC(WeightPenalty):
    """Importance of a weight by the diagonal of the Fisher information, a measure of the curvature of the loss.

    The paper computes the Fisher information at the end of a step, and has a penalty per step. Here it is a running mean of
    squared gradients, F <- alpha g^2 + (1 - alpha) F at every update of all steps. There is one penalty, towards the weights
    of the last step, with w = F at the start of the step, rescaled to [0, 1] in each tensor.

    With `start_from`, step 0 has no updates: F is then the mean over one pass of its images.

    Args:
        importance: weight of the penalty.
        alpha: share of the newest gradient in F.
    """

    importance: Weight = 500.0
    alpha: Share = 0.9

    name = "ewc"

    def first_step_key(self) -> dict[str, Any]:
        """Step 0 is plain cross-entropy, but also computes F."""
        return {"remembers": "fisher", "alpha": self.alpha}

    def strength(self, name: str) -> Tensor | None:
        """n(F)."""
        fisher = self.state.get(f"fisher.{name}")
        return None if fisher is None else normalise(fisher)

    def estimate(self, learning: Learning, gradients: list[Tensor]) -> None:
        """F <- alpha g^2 + (1 - alpha) F; F of new parameters starts with 1."""
        fishers = self.recall("fisher", learning, torch.ones_like)
        self.remember_finite("fisher", learning, running_fisher(fishers, gradients, self.alpha), fishers)

    def after_step(self, context: StepContext) -> None:
        """Keep F."""
        if context.epochs == 0:
            self.state.update({f"fisher.{name}": fisher for name, fisher in fisher_of_pass(self, context).items()})
        super().after_step(context)

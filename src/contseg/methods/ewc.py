"""EWC: Elastic Weight Consolidation (Kirkpatrick et al., PNAS 2017), as run in the code base of MiB."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contseg.losses.regularisers import normalise, running_fisher
from contseg.methods.method import StepContext
from contseg.methods.weight_penalty import Learning, WeightPenalty, fisher_of_pass


@dataclass(frozen=True)
class EWC(WeightPenalty):
    """A weight is important where the loss is curved: by the diagonal of the Fisher information.

    The paper takes the Fisher information at the end of a step and a penalty per step; here it is a running mean of
    squared gradients, F <- alpha g^2 + (1 - alpha) F at every update of all steps, and there is one penalty, towards the
    last step, with w = F at the step's start, rescaled to [0, 1] in each tensor.

    With `start_from`, step 0 has no updates: F is then the mean over one pass of its images.

    Args:
        importance: weight of the penalty.
        alpha: share of the newest gradient in F.
    """

    importance: float = 500.0
    alpha: float = 0.9

    name = "ewc"

    def first_step_key(self) -> dict[str, Any]:
        """Step 0 is plain cross-entropy, but F is kept."""
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

"""RW: Riemannian Walk for Incremental Learning (Chaudhry et al., ECCV 2018), as run in the code base of MiB."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contseg.losses.regularisers import normalise, path_per_divergence, running_fisher
from contseg.methods.method import StepContext
from contseg.methods.weight_penalty import Learning, WeightPenalty, copied, fisher_of_pass
from contseg.options import Several, Share, Weight


@dataclass(frozen=True)
class RW(WeightPenalty):
    """EWC and PI combined, with the path relative to the change of the predictions.

    At every `interval`-th update path += g d / (F d^2 / 2 + 1e-8), where d is the change since the last one and F is that of
    EWC. After the step, score = max(0, path), averaged with the previous score if there is one. w = n(F) + n(score), each
    rescaled to [0, 1] in each tensor.

    With `start_from`, step 0 has no path: F is then the mean over one pass of its images, and w = n(F).

    Args:
        importance: weight of the penalty.
        alpha: share of the newest gradient in F.
        interval: updates between two measurements of the path.
    """

    importance: Weight = 100.0
    alpha: Share = 0.9
    interval: Several = 10

    name = "rw"

    def first_step_key(self) -> dict[str, Any]:
        """Step 0 is plain cross-entropy, but also computes F and the score."""
        return {"remembers": "fisher and path", "alpha": self.alpha, "interval": self.interval}

    def strength(self, name: str) -> Tensor | None:
        """n(F) + n(score)."""
        fisher, score = (self.state.get(f"{kind}.{name}") for kind in ("fisher", "score"))
        if fisher is None:
            return None
        return normalise(fisher) if score is None else normalise(fisher) + normalise(score)

    def estimate(self, learning: Learning, gradients: list[Tensor]) -> None:
        """Add to the path at every `interval`-th update, with F of the previous update; update F at every one."""
        fishers = self.recall("fisher", learning, torch.ones_like)
        updates = int(self.state.get("updates", 0))  # on CPU, so that reading it does not wait for the device
        self.state["updates"] = torch.tensor(updates + 1)
        if updates % self.interval == 0:
            before = self.recall("before", learning, copied)  # no change at first
            path = self.recall("path", learning)
            more = path_per_divergence(gradients, before, list(learning.values()), fishers)
            self.remember_finite("path", learning, [old + new for old, new in zip(path, more, strict=True)], path)
            self.remember("before", learning, map(copied, learning.values()))
        self.remember_finite("fisher", learning, running_fisher(fishers, gradients, self.alpha), fishers)

    def after_step(self, context: StepContext) -> None:
        """Turn the path into the score; keep F."""
        if context.epochs == 0:
            self.state.update({f"fisher.{name}": fisher for name, fisher in fisher_of_pass(self, context).items()})
        walked = {name: p for name, p in context.student.named_parameters() if f"path.{name}" in self.state}
        for name, path in zip(walked, self.recall("path", walked), strict=True):
            score = self.state.get(f"score.{name}")
            gained = path.clamp(min=0)
            self.state[f"score.{name}"] = gained if score is None else (gained + score.to(gained.device)) / 2
        self.forget("path", "before", "updates")
        super().after_step(context)

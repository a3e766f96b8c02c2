"""PI: path integrals, or Continual Learning Through Synaptic Intelligence (Zenke et al., ICML 2017), as run by MiB."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from contseg.losses.regularisers import normalise, path_integral, path_per_distance
from contseg.methods.method import StepContext
from contseg.methods.weight_penalty import Learning, WeightPenalty, copied
from contseg.options import Weight


@dataclass(frozen=True)
class PI(WeightPenalty):
    """Importance of a weight by how much its path through a step lowered the loss, relative to the distance.

    path += g (p_before - p), summed over the updates; after the step, score += max(0, path / ((p - p_start)^2 + 1e-20)).
    As released, a change of weights is multiplied by the gradient *after* it (the paper: before it), and w is the score
    rescaled to [0, 1] in each tensor.

    With `start_from`, step 0 has no path, so step 1 has no penalty: it is plain fine-tuning.

    Args:
        importance: weight of the penalty.
    """

    importance: Weight = 500.0

    name = "pi"

    def first_step_key(self) -> dict[str, Any]:
        """Step 0 is plain cross-entropy, but also computes the score."""
        return {"remembers": "path"}

    def strength(self, name: str) -> Tensor | None:
        """n(score)."""
        score = self.state.get(f"score.{name}")
        return None if score is None else normalise(score)

    def estimate(self, learning: Learning, gradients: list[Tensor]) -> None:
        """path += g (p_before - p); 0 at the first update."""
        before = self.recall("before", learning, copied)
        path = self.recall("path", learning)
        more = path_integral(gradients, before, list(learning.values()))
        self.remember_finite("path", learning, [old + new for old, new in zip(path, more, strict=True)], path)
        self.remember("before", learning, map(copied, learning.values()))

    def after_step(self, context: StepContext) -> None:
        """Turn the path into the score."""
        walked = {name: p.detach() for name, p in context.student.named_parameters() if f"path.{name}" in self.state}
        parts = [self.recall(kind, walked) for kind in ("path", "anchor", "score")]
        for (name, parameter), path, start, score in zip(walked.items(), *parts, strict=True):
            self.state[f"score.{name}"] = path_per_distance(path, parameter, start) + score
        self.forget("path", "before")
        super().after_step(context)

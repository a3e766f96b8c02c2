"""LAG as its last complete script trains it."""

import math
from dataclasses import dataclass

from torch import Tensor

from contseg.losses.confidence import released_ranking
from contseg.losses.contrast import decoupled_contrast
from contseg.losses.decoupling import released_consistency
from contseg.losses.distillation import dense_distillation
from contseg.methods.lag import LAG
from contseg.methods.method import StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.precision import precise
from contseg.scenarios.batch import Batch

OWN = math.log(1e-45)
"""Added to the entries of an image with itself in the contrast, about -103.6."""


@dataclass(frozen=True)
class LAGReleased(LAG):
    """Later steps train classifiers only, as SSUL does.

    So distillation, contrast and consistency (over rows, not channels) reach no trainable parameter. They are local to a
    rank.
    """

    variant = "released"
    taps = ("aspp1", "aspp2", "aspp3", "aspp4")
    classifiers_only = True
    inert_terms = frozenset({"distillation", "contrast", "consistency"})
    whole_batch_terms = ()

    def before_step(self, context: StepContext) -> None:
        """Nothing to do, as there is no state."""

    def confident(self, best: tuple[Tensor, ...], context: StepContext) -> tuple[Tensor, Tensor]:
        """The teacher's class, and whether its score reaches the threshold (with `ranking`, also the released ranking)."""
        predicted, score, margin = best
        confident = score >= self.threshold
        if self.ranking:
            confident &= released_ranking(predicted, margin) > self.threshold
        return predicted, confident

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term, and three terms that train nothing."""
        terms = {"cross_entropy": self.supervise(student, batch, context)}
        if teacher is None:
            return terms
        ours, theirs = ([precise(features) for features in output.features.values()] for output in (student, teacher))
        return terms | {
            "distillation": dense_distillation(ours, theirs, decay=self.decay**context.progress, decay_last=True),
            "contrast": decoupled_contrast(ours[-1].flatten(1), theirs[-1].flatten(1), own=OWN),
            "consistency": released_consistency(ours[-1], theirs[-1]).mean(),
        }

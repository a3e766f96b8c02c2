"""IDEC as its published commands train it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.losses.confidence import first_best
from contseg.losses.contrast import fold_unknown, released_region_contrast
from contseg.losses.distillation import dense_distillation
from contseg.methods.idec import IDEC
from contseg.methods.method import StepContext
from contseg.methods.unknown import WithUnknown
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch

DRAWN_FROM, ROUNDS = 20, 10
"""Class numbers and rounds of the contrast."""


@dataclass(frozen=True)
class IDECReleased(IDEC):
    """Later steps train classifiers only, as SSUL does, so distillation and contrast reach no parameter.

    There is one threshold, logits are not distilled, and the contrast adds the logit of unknown to that of background before
    the supervised term. The random draws and the first image of the contrast are local to a rank, which has no effect on
    training.
    """

    variant = "released"
    classifiers_only = True
    inert_terms = frozenset({"distillation", "contrast"})
    whole_batch_terms = ()

    def before_step(self, context: StepContext) -> None:
        """Nothing to clear, as there are no confidences."""

    def confident(self, best: tuple[Tensor, ...], context: StepContext) -> tuple[Tensor, Tensor]:
        """One threshold, as SSUL."""
        return WithUnknown.confident(self, best, context)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term, and distillation and contrast that train nothing."""
        supervised = student
        if teacher is not None and self.contrast:
            logits = student.logits_at(batch.size)  # added after resizing, as released
            supervised = SegmenterOutput(torch.cat([logits[:, :1], fold_unknown(logits)], dim=1))
        terms = {"cross_entropy": self.supervise(supervised, batch, context)}
        if teacher is None:
            return terms
        ours, theirs = list(student.features.values()), list(teacher.features.values())
        terms["distillation"] = self.dense * dense_distillation(ours, theirs, decay=self.decay**context.progress)
        if self.contrast:
            terms["contrast"] = self.contrast * self.regions(ours[-1], theirs[-1], teacher, context)
        return terms

    @torch.no_grad()
    def regions(self, ours: Tensor, theirs: Tensor, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """ARCL as released, over regions of random classes."""
        size = (4 * ours.shape[2], 4 * ours.shape[3])
        predicted = per_pixel(lambda logits: first_best(fold_unknown(logits)), size, teacher)
        drawn = [
            turn + int(torch.randint(1, DRAWN_FROM - turn, (1,), generator=context.generator)) for turn in range(ROUNDS)
        ]
        return released_region_contrast(ours, theirs, predicted, drawn)

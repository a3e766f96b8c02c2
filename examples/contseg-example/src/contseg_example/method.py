"""A method: pseudo-labels by score and margin, and distillation of what the classifiers read."""

from dataclasses import dataclass

import torch

from contseg import Method
from contseg.losses.confidence import top_two
from contseg.losses.distillation import distillation
from contseg.methods.pseudo_labels import fill_in


@dataclass(frozen=True)
class Careful(Method):
    """Background becomes what the teacher predicts where its score and its margin are high.

    Args:
        threshold: least score of a pseudo-label, in (0, 1).
        margin: least distance to the second score.
        pull: weight of the distillation.
    """

    threshold: float = 0.7
    margin: float = 0.3
    pull: float = 2.0

    name = "careful"
    taps = ("head",)  # features that `losses` reads
    needs_teacher = True
    new_classes_start_from = "background"

    @torch.no_grad()
    def relabel(self, batch, teacher, context):
        if teacher is None:  # step 0
            return batch
        predicted, score, margin = top_two(teacher.logits_at(batch.size).softmax(dim=1))
        confident = (score >= self.threshold) & (margin >= self.margin)
        return fill_in(batch, predicted, confident, context.step.foreground)

    def losses(self, batch, student, teacher, context):
        terms = super().losses(batch, student, teacher, context)  # cross-entropy
        if teacher is not None:
            kept = distillation(student.features["head"], teacher.features["head"], alpha=2.0)
            terms["features"] = self.pull * kept.mean()
        return terms

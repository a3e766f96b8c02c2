"""MBS: class tokens that start from background (Park et al., Mitigating Background Shift in CSS, ECCV 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.losses.distillation import distillation
from contseg.losses.features import old_positions, squared_distance
from contseg.losses.tokens import guided_distillation, patch_weights, token_overlap
from contseg.methods.method import Method, StepContext
from contseg.methods.pseudo_labels import fill_in
from contseg.models.options import NetworkOptions
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Share, Weight
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class MBS(Method):
    """Cross-entropy on selected pseudo-labels, and distillation of patches, classes and logits on a network of class tokens.

    Background becomes the class of which the teacher is sure, and is ignored where the teacher sees some old class, but is
    not sure which. Patches of old classes, and of background as far as the teacher sees background, are held in place, and
    so are the vectors of old classes in each image. In the distillation of logits a new class takes over background's share.
    The tokens of new classes, which start as copies of that of background, are pushed away from all others.

    Args:
        threshold: probability from which the teacher's class is a pseudo-label.
        distillation: weight of the distillation of logits (25 VOC, 50 ADE20K).
        guided: whether labels of new classes guide that distillation; otherwise it is that of LwF.
        patches, classes: weights of the distances of patches and of class vectors.
        orthogonality: weight of the cosines between tokens; the term is also multiplied by the share of new classes.

    A term with weight 0 is omitted.
    """

    threshold: Share = 0.7
    distillation: Weight = 25.0
    guided: bool = True
    patches: Weight = 1.0
    classes: Weight = 1.0
    orthogonality: Weight = 1.0

    name = "mbs"
    first_step_is_plain = True
    taps = ("patches", "classes", "tokens", "patch_logits")
    needs_teacher = True
    new_classes_start_from = "background"

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """The classes must be tokens, and a pseudo-label needs a background to replace."""
        if not network.head.tokens:
            raise ContsegError(
                f"network.head: method '{self.name}' learns class tokens, and {network.title} has none; set"
                " network.head.name=mask-transformer"
            )
        super().check(network, steps)
        for step in steps:
            if not step.table.has_background:
                raise ContsegError(
                    f"method.name: '{self.name}' starts new classes from background, and these classes have none; use"
                    " another method"
                )

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Replace background by the teacher's class where it is sure, and ignore it where some old class is more probable.

        If old classes were annotated in an image (replay memory), background can hide only the others.
        """
        if teacher is None or context.step.new_count == 0:
            return batch
        predicted, sure, hidden = per_pixel(self.guess, batch.size, teacher, batch.annotated)
        filled = fill_in(batch, predicted, sure, foreground=1)
        return filled.relabelled(filled.labels.where((filled.labels != 0) | ~hidden, IGNORE), filled.weights)

    def guess(self, logits_BOHW: Tensor, annotated_BK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's class of each pixel, whether it is confident, and whether background is less probable than all old
        classes together: (B, H, W) int64, bool and bool.
        """
        probabilities = logits_BOHW.softmax(dim=1)
        greatest, predicted = probabilities.max(dim=1)
        could_hide = ~annotated_BK[:, 1 : logits_BOHW.shape[1], None, None]
        return predicted, greatest >= self.threshold, probabilities[:, 0] < (probabilities[:, 1:] * could_hide).sum(dim=1)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy + distances of patches and classes + distillation of logits + cosines of new tokens."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is None:
            return terms
        old = teacher.logits.shape[1]
        if self.patches:
            terms["patches"] = self.patches * self.patch_distance(batch, student, teacher, context)
        if self.classes:
            ours, theirs = student.features["classes"][:, :old], teacher.features["classes"]
            terms["classes"] = self.classes * squared_distance(ours.transpose(1, 2), theirs.transpose(1, 2)).mean()
        if self.distillation:
            kept = (
                per_pixel(guided_distillation, batch.size, student, teacher, batch.labels)
                if self.guided
                else per_pixel(distillation, batch.size, student, teacher)
            )
            terms["distillation"] = self.distillation * kept.mean()
        if self.orthogonality and context.step.new_count:
            tokens = student.features["tokens"][0]
            share = (len(tokens) - old) / len(tokens)
            terms["orthogonality"] = self.orthogonality * share * self.overlap(token_overlap(tokens, old))
        return terms

    def overlap(self, cosines: Tensor) -> Tensor:
        """The mean over all pairs of a new class and another one."""
        return cosines.mean()

    def patch_distance(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput, context: StepContext
    ) -> Tensor:
        """Weighted squared distance, over the number of patches with a weight in the batches of all ranks."""
        ours, theirs = student.features["patches"], teacher.features["patches"]
        grid, old = (ours.shape[2], ours.shape[3]), teacher.logits.shape[1]

        def weighted(labels_BHW: Tensor) -> Tensor:
            return old_positions(labels_BHW, grid, old)  # a probability of background is positive

        weights = patch_weights(batch.labels, teacher.features["patch_logits"])
        return context.mean_over_valid(squared_distance(ours, theirs) * weights, weighted(batch.labels), weighted)

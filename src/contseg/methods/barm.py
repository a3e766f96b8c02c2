"""BARM: Background Adaptation with Residual Modeling for exemplar-free segmentation (ECCV 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.losses.background_residual import above_zero, below_zero, branch_distance, grouped_distillation
from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.losses.features import nearest
from contseg.methods.method import Method, StepContext
from contseg.methods.pseudo_labels import fill_in
from contseg.models.names import RESIDUAL_TAPS
from contseg.models.options import NetworkOptions
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import Share, Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class BARM(Method):
    """Background is that of step 0, lowered by a residual of every step; a branch per step; binary losses per output.

    A step only learns its classes and its residual from labels. Old branches, and all outputs of old steps, are distilled
    separately, before they are merged. A new branch starts as a copy of step 0's. Later steps freeze the norms, and dropout
    stays active.

    Args:
        threshold: minimum score of the teacher for its class to replace background.
        margin: weight of the term that keeps the residual positive where nothing is labelled.
        branch: weight of the distance of the old branches where nothing is labelled.
        group: weight of the distillation of the outputs of old steps.
        residual: weight of the term that makes the residual negative on objects of the step.
        old_factor: factor of the learning rate for old branches and old classifiers in later steps.

    A term with weight 0 is omitted.
    """

    threshold: Share = 0.7
    margin: Weight = 5.0
    branch: Weight = 4.0
    group: Weight = 1.0
    residual: Weight = 1.0
    old_factor: Weight = 0.1

    name = "barm"
    needs_teacher = True
    new_classes_start_from = "branch"
    backgrounds = ("residual",)
    taps = RESIDUAL_TAPS

    copies_statistics: ClassVar[bool] = True
    """Whether a new branch has the statistics of step 0's branch too."""

    def first_step_key(self) -> dict[str, Any]:
        """Binary cross-entropy per output, as SSUL's step 0 on its own network."""
        return {"supervised": "sigmoid"}

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """The network must decide with a sigmoid per output, there must be a background, and every step must add classes."""
        super().check(network, steps)
        if network.decision != "sigmoid":
            raise ContsegError(
                f"network.decision: method '{self.name}' trains every output separately; set network.decision=sigmoid"
                f" (it is {network.decision})"
            )
        for step in steps:
            if not step.table.has_background:
                raise ContsegError(
                    f"method.name: '{self.name}' lowers background by a residual, and these classes have no background; use"
                    " another method"
                )
            if not step.new_count:
                raise ContsegError(
                    f"method.name: '{self.name}' adds a branch for the classes of a step, and step {step.index} adds none;"
                    " use another method"
                )

    @torch.no_grad()
    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """In later steps, freeze all norms; that of the new branch has the statistics of step 0's branch."""
        if not step.old_count:
            return
        segmenter.freeze(norms=True)
        if self.copies_statistics:
            first, *_, newest = (part[1] for part in segmenter.classifier.steps)  # type: ignore[index]
            newest.running_mean.copy_(first.running_mean)
            newest.running_var.copy_(first.running_var)

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """In later steps, a smaller learning rate for old branches and classifiers."""
        if not step.old_count:
            return super().parameter_groups(segmenter, step)
        old = {id(parameter) for part in segmenter.classifier.steps[:-1] for parameter in part.parameters()}
        learning = [parameter for parameter in segmenter.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in learning if id(parameter) not in old], "lr_factor": 1.0},
            {"params": [parameter for parameter in learning if id(parameter) in old], "lr_factor": self.old_factor},
        ]

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Replace background by the teacher's class where the teacher is confident."""
        if teacher is None:
            return batch

        def best(logits_BOHW: Tensor) -> tuple[Tensor, Tensor]:
            score, predicted = logits_BOHW.sigmoid().max(dim=1)
            return predicted, score

        predicted, score = per_pixel(best, batch.size, teacher)
        return fill_in(batch, predicted, score >= self.threshold, context.step.foreground)

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over the valid pixels of all ranks.

        In later steps, old classes have no gradient, and background only into the residual of the step, see `merged`.
        """
        old = context.step.old_count
        if old:
            logits = output.logits
            output = SegmenterOutput(torch.cat([logits[:, :1], logits[:, 1:old].detach(), logits[:, old:]], dim=1))
        loss = per_pixel(sigmoid_cross_entropy, batch.size, output, batch.labels)
        return context.mean_over_valid(loss, batch.labels)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term + margin and sign of the residual + distillation of branches and of outputs per step."""
        terms = {"binary": self.supervise(student, batch, context)}
        if teacher is None:
            return terms
        ours, theirs = (output.features["raw_logits"] for output in (student, teacher))
        size, old = (ours.shape[2], ours.shape[3]), context.step.old_count
        residual = ours[:, theirs.shape[1]]
        labelled, unlabelled = masks = given_masks(batch, size, old)
        counts, parts = _counts(masks, size, context)
        counts = counts.to(precise(residual).dtype)
        if self.margin:
            total = below_zero(residual).where(unlabelled, 0.0).sum()
            terms["margin"] = self.margin * parts * total / counts[1].clamp(min=1)
        if self.branch:
            kept = teacher.features["branches"]
            now, count = student.features["branches"][:, : kept.shape[1]], len(context.student.widths) - 1
            terms["branch"] = self.branch * branch_distance(now, kept, unlabelled, count)
        if self.group:
            terms["group"] = self.group * grouped_distillation(ours[:, : theirs.shape[1]], theirs)
        if self.residual:
            total = above_zero(residual).where(labelled, 0.0).sum()
            terms["residual"] = self.residual * parts * total / (counts[0] + 1e-8)
        return terms


def given_masks(batch: Batch, size: tuple[int, int], old: int) -> tuple[Tensor, Tensor]:
    """Where a class is labelled, and where nothing is, before pseudo-labels, at the size of a feature map.

    Pseudo-labels are old classes that are not annotated in the image, so they are known without the labels before.

    Args:
        batch: with final labels.
        size: (h, w); a cell has the label of its first pixel, as in PyTorch's interpolation `nearest`.
        old: outputs of the teacher.

    Returns:
        two masks (B, h, w); ignored positions are in neither.

    Example:
        >>> annotated = torch.tensor([[False, False, True]])
        >>> batch = Batch(torch.zeros(1, 3, 1, 4), torch.tensor([[[0, 1, 2, 255]]]), ("a",), annotated)
        >>> labelled, unlabelled = given_masks(batch, (1, 4), 2)
        >>> labelled.tolist(), unlabelled.tolist()
        ([[[False, False, True, False]]], [[[True, True, False, False]]])
    """
    labels = nearest(batch.labels, size)
    hidden = (labels > 0) & (labels < old)
    hidden &= ~batch.annotated.gather(1, labels.where(hidden, 0).flatten(1)).view_as(labels)
    labels = labels.where(~hidden, 0)
    return (labels != 0) & (labels != IGNORE), labels == 0


def _counts(masks: tuple[Tensor, Tensor], size: tuple[int, int], context: StepContext) -> tuple[Tensor, int]:
    """Positions of both masks in the whole update, (2,), and the number of its parts.

    The mean over parts (ranks and passes) of `parts * sum / count` is then the mean over the large batch.
    """
    everything = [masks]
    if context.batches_of_update is not None:
        everything = [given_masks(one, size, context.step.old_count) for one in context.batches_of_update()]
    counts = torch.stack([torch.stack([mask.sum() for mask in one]) for one in everything]).sum(dim=0)
    return context.ranks.sum(counts), context.ranks.count * len(everything)

"""LAG: Learning at a Glance (Yuan et al., TPAMI 2024)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.losses.confidence import top_two
from contseg.losses.contrast import decoupled_contrast
from contseg.losses.decoupling import (
    channel_divergence,
    invariant_channels,
    normalised_relevance,
    relevance_divergence,
    relevance_strength,
)
from contseg.losses.prototypes import class_sums
from contseg.methods.method import StepContext
from contseg.methods.unknown import WithUnknown
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import Several, Share, ShareAboveZero, Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch

KEPT = 0.99
"""Momentum of the running divergence of a channel."""
FADED = 0.01
"""Share of the teacher's mean strength; weaker relevance maps are not scaled up to a sum of 1."""


@dataclass(frozen=True)
class LAG(WithUnknown):
    """Preserves the channels on which the old and the new network agree; on the others, images are contrasted.

    The paper and its code do not determine the formulas. This is **our interpretation**, on the feature f that is the input
    of the classifiers; the whole student is trained. `released` is the last complete script, see `LAGReleased`.

    Channels are ranked by the divergence of the student's spatial distribution from the teacher's. Those with the smallest
    divergence are *semantic-invariant* and distilled; on the others (*sample-specific*) a decoupled contrast separates
    images. Each old class has a *solid prototype* of invariant channels, and its relevance map (gradient times input,
    through the classifiers in evaluation mode) is distilled. Pseudo-labels need a minimum score and margin.

    Args:
        threshold: minimum score of the teacher for a pseudo-label.
        margin: minimum margin of the best class over the second (not in `released`).
        ranking: `released` only: also require that (1 - margin) times the *number* of the class exceeds the threshold.
        specific: rho, the share of sample-specific channels.
        invariance, specificity, prototypes, relevance: weights of the four terms (not in `released`).
        decay: lambda; the first two are weighted by lambda^(epoch / epochs), and so is the distillation of `released`.
        looked_at: maximum number of classes whose relevance is compared in a batch; chosen at random in every batch.
        background_factor: as in SSUL.
        old_factor: factor of the learning rate for the classifiers of old classes in later steps (not in `released`).
    """

    margin: Share = 0.3
    ranking: bool = False
    specific: Share = 0.5
    invariance: Weight = 1.0
    specificity: Weight = 0.1
    prototypes: Weight = 1.0
    relevance: Weight = 0.1
    decay: ShareAboveZero = 0.9
    looked_at: Several = 4
    old_factor: Weight = 1.0

    name = "lag"
    classifiers_only = False
    whole_batch_terms: ClassVar[tuple[str, ...]] = ("invariance", "specificity", "prototypes", "relevance")

    @property
    def taps(self) -> tuple[str, ...]:
        """The input of the classifiers."""
        return ("head",)

    def before_step(self, context: StepContext) -> None:
        """Clear the divergences, and add prototypes of the classes that are old now."""
        if context.step.old_count == 0:
            return
        width, old = context.student.head.width, context.step.old_outputs
        self.state["divergence"] = torch.zeros(width)
        for name, shape in (("prototypes", (old, width)), ("pixels", (old,))):
            grown = torch.zeros(shape, dtype=torch.float64)
            before = self.state.get(name, grown[:0])
            grown[: len(before)] = before
            self.state[name] = grown

    def best(self, scores_BOHW: Tensor) -> tuple[Tensor, ...]:
        """The teacher's class, its score, and its margin over the second class."""
        return top_two(scores_BOHW)

    def confident(self, best: tuple[Tensor, ...], context: StepContext) -> tuple[Tensor, Tensor]:
        """The teacher's class, and whether it reaches the threshold and exceeds the second class by the margin."""
        predicted, score, margin = best
        return predicted, (score >= self.threshold) & (margin >= self.margin)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term + the four terms that preserve features."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is None:
            return terms
        decay = self.decay**context.progress
        ours, theirs = (precise(output.features["head"]) for output in (student, teacher))
        divergence = channel_divergence(ours, theirs)
        invariant = self.invariant(divergence, context)
        return terms | {
            "invariance": self.invariance * decay * (divergence * invariant).sum() / invariant.sum().clamp(min=1),
            "specificity": self.specificity * decay * self.image_contrast(ours, theirs, ~invariant, context),
            "prototypes": self.prototypes * self.prototype_distance(ours, theirs, invariant, teacher, context),
            "relevance": self.relevance * self.relevance_distance(student, teacher, context),
        }

    def invariant(self, divergence_C: Tensor, context: StepContext) -> Tensor:
        """Invariant channels, (C,) bool, by their running divergence over all ranks."""
        now = context.ranks.sum(divergence_C.detach()) / context.ranks.count
        before = self.state["divergence"].to(now)
        self.state["divergence"] = torch.where(before.any(), KEPT * before + (1 - KEPT) * now, now)
        return invariant_channels(self.state["divergence"], self.specific)

    def image_contrast(self, ours: Tensor, theirs: Tensor, specific_C: Tensor, context: StepContext) -> Tensor:
        """Decoupled contrast between the images of all ranks on the specific channels; 0 for a single image."""
        rows = [
            context.ranks.gather(functional.normalize(features.mean(dim=(2, 3)) * specific_C, dim=1))
            for features in (ours, theirs)
        ]
        return decoupled_contrast(rows[0], rows[1]) if len(rows[0]) > 1 else 0.0 * rows[0].sum()

    def prototype_distance(
        self, ours: Tensor, theirs: Tensor, invariant_C: Tensor, teacher: SegmenterOutput, context: StepContext
    ) -> Tensor:
        """1 - cosine similarity of mean features and prototypes of old classes; mean over the classes in the batch.

        The mean is over the student's features where the teacher is confident. The prototype is the running mean of the
        teacher's features.
        """
        predicted, count = self.confident_classes(teacher, context), teacher.logits.shape[1]
        sums, pixels = (context.ranks.sum(part) for part in class_sums(ours, predicted, count))
        with torch.no_grad():
            theirs_sums = context.ranks.sum(class_sums(theirs, predicted, count)[0])
            before, seen = self.state["prototypes"].to(sums.device), self.state["pixels"].to(sums.device)
            total = seen + pixels
            prototypes = (before * seen[:, None] + theirs_sums) / total.clamp(min=1)[:, None]
            self.state["prototypes"], self.state["pixels"] = prototypes, total
        there = pixels > 0
        agreement = functional.cosine_similarity(sums * invariant_C, prototypes.to(sums.dtype) * invariant_C, dim=1)
        return ((1 - agreement) * there).sum() / there.sum().clamp(min=1)

    def confident_classes(self, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """Old class that the teacher predicts with confidence, (B, h, w); -1 elsewhere."""
        score, predicted = precise(teacher.logits).sigmoid().max(dim=1)
        return predicted.where((predicted >= context.step.foreground) & (score >= self.threshold), -1)

    def relevance_distance(self, student: SegmenterOutput, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """Divergence between the relevance maps of student and teacher; mean over a random choice of old classes."""
        assert context.teacher is not None
        predicted, first = teacher.logits.argmax(dim=1), context.step.foreground
        old_classes = torch.arange(first, teacher.logits.shape[1], device=predicted.device)
        inside = predicted[:, None] == old_classes[None, :, None, None]
        contains = inside.flatten(2).any(dim=2)  # (B, old classes)
        images = context.ranks.sum(contains.sum(dim=0))
        draws = torch.rand(len(images), generator=context.generator).to(predicted.device, non_blocking=True)
        chosen = (draws + (images > 0)).topk(min(self.looked_at, len(images))).indices  # classes in the batch come first
        old = slice(first, len(context.teacher.widths))  # classifiers of the teacher's classes
        ours, theirs = (
            _strengths(segmenter, output.features["head"], inside[:, chosen], chosen, old, differentiable)
            for segmenter, output, differentiable in ((context.student, student, True), (context.teacher, teacher, False))
        )
        floors = FADED * context.ranks.sum(theirs.sum(dim=(1, 2))) / images[chosen].clamp(min=1)
        apart = torch.stack(
            [
                relevance_divergence(normalised_relevance(student_BN, floor), normalised_relevance(teacher_BN, floor))
                for student_BN, teacher_BN, floor in zip(ours, theirs, floors, strict=True)
            ],
            dim=1,
        )
        there = images[chosen] > 0
        each = (apart * contains[:, chosen]).sum(dim=0) / images[chosen].clamp(min=1)
        return context.ranks.count * (each * there).sum() / there.sum().clamp(min=1)


def _strengths(
    segmenter: Segmenter, features: Tensor, inside: Tensor, classes: Tensor, steps: slice, differentiable: bool
) -> Tensor:
    """Relevance of each position for M classes, (M, B, h w): gradient times input of the classifier in evaluation mode.

    Args:
        inside: (B, M, h, w) bool, the pixels over which the score of a class is summed.
        classes: (M,) indices of the classes among the outputs of `steps` of the classifier.
        differentiable: whether the result has a gradient.
    """
    features = precise(features)
    with torch.enable_grad(), _evaluating(segmenter.classifier):
        # a view, because under mixed precision only the training loop gets gradients of the student's output itself
        read = features.view_as(features) if features.requires_grad else features.detach().requires_grad_()
        scores = (segmenter.classifier(read, steps)[:, classes] * inside).sum(dim=(0, 2, 3))
        slopes = [
            torch.autograd.grad(score, read, retain_graph=True, create_graph=differentiable)[0] for score in scores.unbind()
        ]
    return torch.stack([relevance_strength(features, slope) for slope in slopes])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode

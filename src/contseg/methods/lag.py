"""LAG: Learning at a Glance (Yuan et al., TPAMI 2024)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.losses.confidence import released_ranking, top_two
from contseg.losses.contrast import decoupled_contrast
from contseg.losses.decoupling import (
    channel_divergence,
    invariant_channels,
    normalised_relevance,
    released_consistency,
    relevance_divergence,
    relevance_strength,
)
from contseg.losses.distillation import dense_distillation
from contseg.losses.prototypes import class_sums
from contseg.methods.method import Method, StepContext
from contseg.methods.pseudo_labels import fill_in
from contseg.methods.unknown import (
    FIRST_STEP,
    classifier_groups,
    freezes,
    learn_classifiers_only,
    opinion,
    require_sigmoid,
    supervise_each_output,
)
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

RELEASED_OWN = math.log(1e-45)
"""What the released contrast adds to an image's own entries, about -103.6."""
KEPT = 0.99
"""Share of a channel's running divergence that stays with every batch."""
FADED = 0.01
"""Share of the teacher's mean strength below which a map of relevance is not scaled up to a sum of 1."""


@dataclass(frozen=True)
class LAG(Method):
    """Channels on which old and new network agree are kept; on the others images are told apart.

    The paper's formulas cannot be recovered from what is published. The variants are:

    * `paper`: **this project's reading**, on the feature f that the classifiers read; the student learns as a whole.
      Channels are ranked by how far the student's spatial distribution diverges from the teacher's; the closest are
      *semantic-invariant* and are held close, on the others (*sample-specific*) a decoupled contrast tells images apart.
      Each old class has a *solid prototype* of invariant channels, and looks where it looked before (gradient times
      input, through the classifiers as they are at test, with running statistics). Pseudo labels need a score and a margin.
    * `released`: the last complete driver. Later steps learn classifiers only, as SSUL does, so its distillation, its
      contrast and its consistency (over rows, not channels) reach no parameter (`inert_terms`). They are local to a rank.

    Args:
        variant: see above.
        threshold: of the teacher's score.
        margin: of the best class over the second (`paper`).
        ranking: `released` only: also ask that (1 - margin) times the class's *number* exceeds the threshold.
        specific: rho, the share of sample-specific channels.
        invariance, specificity, prototypes, relevance: weights of the four terms of `paper`.
        decay: lambda; the first two count lambda^(epoch / epochs), and so does the distillation of `released`.
        looked_at: classes whose relevance is compared in a batch, at most; drawn anew in every batch.
        background_factor: as of SSUL.
        old_factor: of the learning rate, for the classifiers of old classes in later steps (`paper`).
    """

    variant: Literal["paper", "released"] = "paper"
    threshold: float = 0.7
    margin: float = 0.3
    ranking: bool = False
    specific: float = 0.5
    invariance: float = 1.0
    specificity: float = 0.1
    prototypes: float = 1.0
    relevance: float = 0.1
    decay: float = 0.9
    looked_at: int = 4
    background_factor: float = 1e-4
    old_factor: float = 1.0

    name = "lag"
    needs_teacher = True
    new_classes_start_from = "unknown"
    handles_unknown = True
    needs_unknown = True

    @property
    def taps(self) -> tuple[str, ...]:
        """What the classifiers read; as released, also the three shallower pyramids."""
        return ("head",) if self.variant == "paper" else ("aspp1", "aspp2", "aspp3", "aspp4")

    @property
    def inert_terms(self) -> frozenset[str]:
        """What the released variant computes above everything that learns."""
        return frozenset({"distillation", "contrast", "consistency"} if self.variant == "released" else ())

    @property
    def whole_batch_terms(self) -> tuple[str, ...]:
        """Of `paper`: channels are ranked by running means, and images and classes compared over the batch."""
        return ("invariance", "specificity", "prototypes", "relevance") if self.variant == "paper" else ()

    def first_step_key(self) -> dict[str, Any]:
        """Shared with SSUL and IDEC."""
        return FIRST_STEP

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """The network must decide output by output."""
        super().check(network, steps)
        require_sigmoid(network, self.name)

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """`released` holds what is learned."""
        if self.variant == "released" and freezes(step):
            learn_classifiers_only(segmenter)

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """Background's classifier learns slowly in later steps, and those of old classes if wanted."""
        if freezes(step):
            return classifier_groups(segmenter, self.background_factor, self.old_factor)
        return super().parameter_groups(segmenter, step)

    def before_step(self, context: StepContext) -> None:
        """Divergences begin anew; prototypes stay, with room for the classes that are old now."""
        if self.variant == "released" or context.step.old_count == 0:
            return
        width, old = context.student.head.width, context.step.old_outputs
        self.state["divergence"] = torch.zeros(width)
        for name, shape in (("prototypes", (old, width)), ("pixels", (old,))):
            grown = torch.zeros(shape, dtype=torch.float64)
            before = self.state.get(name, grown[:0])
            grown[: len(before)] = before
            self.state[name] = grown

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Unknown and background become the teacher's class where it is sure of it."""
        if teacher is None:
            return batch
        said, score, margin = top_two(opinion(teacher, batch.size))
        sure = score >= self.threshold
        if self.variant == "paper":
            sure &= margin >= self.margin
        elif self.ranking:
            sure &= released_ranking(said, margin) > self.threshold
        return fill_in(batch, said, sure, context.step.foreground)

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over valid pixels."""
        return supervise_each_output(logits_BKHW, batch, context)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term, and what holds the features."""
        terms = {"cross_entropy": self.supervise(student.logits_at(batch.size), batch, context)}
        if teacher is None:
            return terms
        decay = self.decay ** ((context.epoch + 1) / context.epochs)
        ours, theirs = ([precise(features) for features in output.features.values()] for output in (student, teacher))
        if self.variant == "released":
            rows = ours[-1].flatten(1), theirs[-1].flatten(1)
            return terms | {
                "distillation": dense_distillation(ours, theirs, decay=decay, decay_last=True),
                "contrast": decoupled_contrast(*rows, own=RELEASED_OWN),
                "consistency": released_consistency(ours[-1], theirs[-1]).mean(),
            }
        divergence = channel_divergence(ours[-1], theirs[-1])
        invariant = self.ranked(divergence, context)
        return terms | {
            "invariance": self.invariance * decay * (divergence * invariant).sum() / invariant.sum().clamp(min=1),
            "specificity": self.specificity * decay * self.told_apart(ours[-1], theirs[-1], ~invariant, context),
            "prototypes": self.prototypes * self.solid(ours[-1], theirs[-1], invariant, teacher, context),
            "relevance": self.relevance * self.looks(student, teacher, context),
        }

    def ranked(self, divergence_C: Tensor, context: StepContext) -> Tensor:
        """Which channels are invariant, (C,) bool, by the running mean of their divergence over all ranks."""
        now = context.ranks.sum(divergence_C.detach()) / context.ranks.count
        before = self.state["divergence"].to(now)
        self.state["divergence"] = torch.where(before.any(), KEPT * before + (1 - KEPT) * now, now)
        return invariant_channels(self.state["divergence"], self.specific)

    def told_apart(self, ours: Tensor, theirs: Tensor, specific_C: Tensor, context: StepContext) -> Tensor:
        """Decoupled contrast between the images of all ranks on the specific channels; 0 for one image alone."""
        rows = [
            context.ranks.gather(functional.normalize(features.mean(dim=(2, 3)) * specific_C, dim=1))
            for features in (ours, theirs)
        ]
        return decoupled_contrast(rows[0], rows[1]) if len(rows[0]) > 1 else 0.0 * rows[0].sum()

    def solid(
        self, ours: Tensor, theirs: Tensor, invariant_C: Tensor, teacher: SegmenterOutput, context: StepContext
    ) -> Tensor:
        """1 - cosine between the student's mean feature where the teacher is sure of an old class, and the class's
        prototype, the running mean of the teacher's; mean over the classes that are there."""
        said, count = self.surely_said(teacher, context), teacher.logits.shape[1]
        sums, pixels = (context.ranks.sum(part) for part in class_sums(ours, said, count))
        with torch.no_grad():
            theirs_sums = context.ranks.sum(class_sums(theirs, said, count)[0])
            before, seen = self.state["prototypes"].to(sums.device), self.state["pixels"].to(sums.device)
            total = seen + pixels
            prototypes = (before * seen[:, None] + theirs_sums) / total.clamp(min=1)[:, None]
            self.state["prototypes"], self.state["pixels"] = prototypes, total
        there = pixels > 0
        agreement = functional.cosine_similarity(sums * invariant_C, prototypes.to(sums.dtype) * invariant_C, dim=1)
        return ((1 - agreement) * there).sum() / there.sum().clamp(min=1)

    def surely_said(self, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """The old class that the teacher is sure of, (B, h, w), and -1 elsewhere."""
        score, said = precise(teacher.logits).sigmoid().max(dim=1)
        return said.where((said >= context.step.foreground) & (score >= self.threshold), -1)

    def looks(self, student: SegmenterOutput, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """How differently student and teacher look for some of the classes that the teacher says; mean over classes."""
        assert context.teacher is not None
        said, first = teacher.logits.argmax(dim=1), context.step.foreground
        inside = said[:, None] == torch.arange(first, teacher.logits.shape[1], device=said.device)[None, :, None, None]
        holds = inside.flatten(2).any(dim=2)  # (B, old classes)
        images = context.ranks.sum(holds.sum(dim=0))
        lots = torch.rand(len(images), generator=context.generator).to(said.device)
        chosen = (lots + (images > 0)).topk(min(self.looked_at, len(images))).indices  # those that are there come first
        old = slice(first, len(context.teacher.widths))  # classifiers of classes that the teacher knows
        ours, theirs = (
            _strengths(segmenter, output.features["head"], inside[:, chosen], chosen, old, learns)
            for segmenter, output, learns in ((context.student, student, True), (context.teacher, teacher, False))
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
        each = (apart * holds[:, chosen]).sum(dim=0) / images[chosen].clamp(min=1)
        return context.ranks.count * (each * there).sum() / there.sum().clamp(min=1)


def _strengths(
    segmenter: Segmenter, features: Tensor, inside: Tensor, classes: Tensor, steps: slice, learns: bool
) -> Tensor:
    """How much each place counts for some classes, (M, B, h w): gradient times input at the classifier's input, as at test.

    Args:
        inside: (B, M, h, w) bool, over which a class's score is summed.
        classes: (M,) their places among the outputs of `steps` of the classifier.
        learns: whether gradients follow.
    """
    features = precise(features)
    with torch.enable_grad(), _as_at_test(segmenter.classifier):
        # a view: under mixed precision, gradients of the student's output itself are only given to the training loop
        read = features.view_as(features) if features.requires_grad else features.detach().requires_grad_()
        scores = (segmenter.classifier(read, steps)[:, classes] * inside).sum(dim=(0, 2, 3))
        slopes = [torch.autograd.grad(score, read, retain_graph=True, create_graph=learns)[0] for score in scores.unbind()]
    return torch.stack([relevance_strength(features, slope) for slope in slopes])


@contextmanager
def _as_at_test(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode

"""IDEC: Inherit with Distillation and Evolve with Contrast (Zhao et al., TPAMI 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.losses.confidence import class_histogram, running_thresholds
from contseg.losses.contrast import fold_unknown, region_contrast, released_region_contrast
from contseg.losses.distillation import dense_distillation, distillation
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

BINS = 100
DRAWN_FROM, ROUNDS = 20, 10
"""Class numbers and rounds of the released contrast."""


@dataclass(frozen=True)
class IDEC(Method):
    """Features distilled at every depth, regions contrasted with the teacher's, pseudo labels with a threshold per class.

    * `paper`: the student learns as a whole. Four features and the old logits are distilled (DADA), every region that the
      teacher sees is pulled to its features and pushed from the others' (ARCL), and a class of which the teacher is never
      very sure has a lower threshold. The formula of the thresholds is not published and that of ARCL not recoverable from
      the code: both are **this project's reading**.
    * `released`: what the published commands train. Later steps learn classifiers only, as SSUL does, so distillation and
      contrast reach no parameter (`inert_terms`); there is one threshold; the distillation of logits is left out; and the
      contrast adds the unknown's logit to background's before the supervised term sees it. The draws and the first image
      of its contrast are local to a rank; nothing depends on them.

    As published, under the head of SSUL the pyramids over stages 1 to 3 learn nothing in step 0, so that their first
    distillation is of random projections; later steps of `paper` train the student's copies of them.

    Args:
        variant: see above.
        threshold: of the teacher's score: of all classes (`released`), or the highest one (`paper`).
        dense: weight of the distillation of features, of which the four count 0.5, 1, 2 and 1.
        logits: weight of the distillation of old logits (`paper`).
        contrast: weight of the contrast; the published commands have it for VOC 15-5 only.
        decay: lambda; the shallow features count lambda^(epoch / epochs).
        features: `aspp`, of the head of SSUL; `stages`, the backbone's first three stages and the head's output, for other
            networks.
        memory: share of the confidences seen before that stays with every batch (`paper`).
        background_factor: as of SSUL.
        old_factor: of the learning rate, for the classifiers of old classes in later steps (`paper`).
    """

    variant: Literal["paper", "released"] = "paper"
    threshold: float = 0.7
    dense: float = 1.0
    logits: float = 1.0
    contrast: float = 1.0
    decay: float = 1.0
    features: Literal["aspp", "stages"] = "aspp"
    memory: float = 0.99
    background_factor: float = 1e-4
    old_factor: float = 1.0

    name = "idec"
    needs_teacher = True
    new_classes_start_from = "unknown"
    handles_unknown = True
    needs_unknown = True

    @property
    def taps(self) -> tuple[str, ...]:
        """Four features, shallow ones first; the last is what the classifiers read."""
        return ("aspp1", "aspp2", "aspp3", "aspp4") if self.features == "aspp" else ("stage1", "stage2", "stage3", "head")

    @property
    def inert_terms(self) -> frozenset[str]:
        """What the released variant computes above everything that learns."""
        return frozenset({"distillation", "contrast"} if self.variant == "released" else ())

    @property
    def whole_batch_terms(self) -> tuple[str, ...]:
        """Of `paper`: confidences move with every batch, and regions are contrasted over it."""
        return ("thresholds", "contrast") if self.variant == "paper" else ()

    def first_step_key(self) -> dict[str, Any]:
        """Shared with SSUL and LAG."""
        return FIRST_STEP

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """The network must decide output by output, and have the pyramids unless stages are distilled."""
        if self.taps[0] not in network.taps:
            raise ContsegError(
                f"method.features: {network.head.name} has no pyramids to distil; set method.features=stages, or"
                " network.head=deeplabv3-ssul"
            )
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
        """A new teacher's confidences are counted anew."""
        if self.variant == "paper" and context.step.old_count:
            self.state["confidences"] = torch.zeros(context.step.old_outputs, BINS, dtype=torch.float64)

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Unknown and background become the teacher's class where its score reaches the (class's) threshold."""
        if teacher is None:
            return batch
        score, said = opinion(teacher, batch.size).max(dim=1)
        threshold = self.thresholds(score, said, context)[said] if self.variant == "paper" else self.threshold
        return fill_in(batch, said, score >= threshold, context.step.foreground)

    def thresholds(self, score_BHW: Tensor, said_BHW: Tensor, context: StepContext) -> Tensor:
        """A threshold per old output, (O,), from the running medians with this batch's scores in them."""
        before = self.state["confidences"].to(score_BHW.device)
        now = class_histogram(score_BHW.flatten(), said_BHW.flatten(), *before.shape)
        self.state["confidences"] = self.memory * before + context.ranks.sum(now)
        return running_thresholds(self.state["confidences"], self.threshold).to(score_BHW.dtype)

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over valid pixels."""
        return supervise_each_output(logits_BKHW, batch, context)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term, distillation of features (and logits), contrast of regions."""
        logits = student.logits_at(batch.size)
        if teacher is None:
            return {"cross_entropy": self.supervise(logits, batch, context)}
        if self.variant == "released" and self.contrast:
            logits = torch.cat([logits[:, :1], fold_unknown(logits)], dim=1)
        terms = {"cross_entropy": self.supervise(logits, batch, context)}
        ours, theirs = list(student.features.values()), list(teacher.features.values())
        decay = self.decay ** ((context.epoch + 1) / context.epochs)
        terms["distillation"] = self.dense * dense_distillation(ours, theirs, decay=decay)
        if self.variant == "paper":
            terms["distillation_logits"] = self.logits * distillation(student.logits, teacher.logits, alpha=2.0).mean()
        if self.contrast:
            contrast = self.regions if self.variant == "paper" else self.released_regions
            terms["contrast"] = self.contrast * contrast(ours[-1], theirs[-1], teacher, context)
        return terms

    def regions(self, ours: Tensor, theirs: Tensor, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """ARCL over the regions of all ranks' images, at feature resolution."""
        said, first = fold_unknown(teacher.logits).argmax(dim=1), context.step.foreground - 1
        count, ranks = teacher.logits.shape[1] - 1, context.ranks
        ours, theirs = precise(ours), precise(theirs)
        student_sums, pixels = class_sums(ours, said, count)
        teacher_sums, _ = class_sums(theirs, said, count)
        total, everywhere = ranks.sum(ours.sum(dim=(0, 2, 3))), ranks.sum(pixels.sum())
        sums = (ranks.sum(student_sums)[first:], ranks.sum(teacher_sums)[first:])
        return region_contrast(*sums, total, ranks.sum(pixels)[first:], everywhere)

    @torch.no_grad()
    def released_regions(self, ours: Tensor, theirs: Tensor, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """ARCL as released, which trains nothing."""
        size = (4 * ours.shape[2], 4 * ours.shape[3])
        said = fold_unknown(teacher.logits_at(size)).argmax(dim=1)
        drawn = [
            turn + int(torch.randint(1, DRAWN_FROM - turn, (1,), generator=context.generator)) for turn in range(ROUNDS)
        ]
        return released_region_contrast(ours, theirs, said, drawn)

"""IDEC: Inherit with Distillation and Evolve with Contrast (Zhao et al., TPAMI 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.losses.confidence import class_histogram, running_thresholds
from contseg.losses.contrast import fold_unknown, region_contrast
from contseg.losses.distillation import dense_distillation, distillation
from contseg.losses.prototypes import class_sums
from contseg.methods.method import StepContext
from contseg.methods.unknown import WithUnknown
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Share, ShareAboveZero, Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

BINS = 100


@dataclass(frozen=True)
class IDEC(WithUnknown):
    """Distillation of features at every depth, contrast between regions, pseudo-labels with a threshold per class.

    This is the paper's version: the whole student is trained. Four features and the old logits are distilled (DADA). Each
    region that the teacher predicts is attracted to the teacher's features and repelled from those of other regions (ARCL).
    A class with low confidences of the teacher has a lower threshold. The formula of the thresholds is not published, and
    that of ARCL cannot be derived from the code: both are **our interpretation**. `released` is what the published commands
    train, see `IDECReleased`.

    As published, with the head of SSUL the pyramids over stages 1 to 3 are not trained in step 0, so the first distillation
    uses random projections. Later steps train the student's copies of them.

    Args:
        threshold: minimum score of the teacher for a pseudo-label; here the maximum of the thresholds per class.
        dense: weight of the distillation of features; the four have the factors 0.5, 1, 2 and 1.
        logits: weight of the distillation of old logits (not in `released`).
        contrast: weight of the contrast; used by the published command for VOC 15-5 only.
        decay: lambda; the shallow features are weighted by lambda^(epoch / epochs).
        features: `aspp` of the head of SSUL; or `stages`, the first three stages of the backbone and the output of the
            head, for other networks.
        memory: factor of the confidence histograms in each batch, before new values are added (not in `released`).
        background_factor: as in SSUL.
        old_factor: factor of the learning rate for the classifiers of old classes in later steps (not in `released`).
    """

    dense: Weight = 1.0
    logits: Weight = 1.0
    contrast: Weight = 1.0
    decay: ShareAboveZero = 1.0
    features: Literal["aspp", "stages"] = "aspp"
    memory: Share = 0.99
    old_factor: Weight = 1.0

    name = "idec"
    classifiers_only = False
    whole_batch_terms: ClassVar[tuple[str, ...]] = ("thresholds", "contrast")

    @property
    def taps(self) -> tuple[str, ...]:
        """Four features, shallow ones first; the last is the input of the classifiers."""
        return ("aspp1", "aspp2", "aspp3", "aspp4") if self.features == "aspp" else ("stage1", "stage2", "stage3", "head")

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check that the network has a sigmoid per output, and the pyramids unless stages are distilled."""
        if not network.masks and self.taps[0] not in network.taps:
            raise ContsegError(
                f"method.features: {network.head.name} has no pyramids to distil; set method.features=stages, or"
                " network.head=deeplabv3-ssul"
            )
        super().check(network, steps)

    def before_step(self, context: StepContext) -> None:
        """Clear the confidences, as each step has a new teacher."""
        if context.step.old_count:
            self.state["confidences"] = torch.zeros(context.step.old_outputs, BINS, dtype=torch.float64)

    def confident(self, best: tuple[Tensor, ...], context: StepContext) -> tuple[Tensor, Tensor]:
        """The teacher's class, and whether its score reaches the threshold of that class."""
        predicted, score = best
        return predicted, score >= self.thresholds(score, predicted, context)[predicted]

    def thresholds(self, score_BHW: Tensor, predicted_BHW: Tensor, context: StepContext) -> Tensor:
        """Threshold per old output, (O,), from the running medians that include the scores of this batch."""
        before = self.state["confidences"].to(score_BHW.device)
        now = class_histogram(score_BHW.flatten(), predicted_BHW.flatten(), *before.shape)
        self.state["confidences"] = self.memory * before + context.ranks.sum(now)
        return running_thresholds(self.state["confidences"], self.threshold).to(score_BHW.dtype)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term + distillation of features + distillation of logits + contrast of regions."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is None:
            return terms
        ours, theirs = list(student.features.values()), list(teacher.features.values())
        terms["distillation"] = self.dense * dense_distillation(ours, theirs, decay=self.decay**context.progress)
        terms["distillation_logits"] = self.logits * distillation(student.logits, teacher.logits, alpha=2.0).mean()
        if self.contrast:
            terms["contrast"] = self.contrast * self.regions(ours[-1], theirs[-1], teacher, context)
        return terms

    def regions(self, ours: Tensor, theirs: Tensor, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """ARCL over the regions in the images of all ranks, at feature resolution."""
        predicted, first = fold_unknown(teacher.logits).argmax(dim=1), context.step.foreground - 1
        count, ranks = teacher.logits.shape[1] - 1, context.ranks
        ours, theirs = precise(ours), precise(theirs)
        student_sums, pixels = class_sums(ours, predicted, count)
        teacher_sums, _ = class_sums(theirs, predicted, count)
        total, everywhere = ranks.sum(ours.sum(dim=(0, 2, 3))), ranks.sum(pixels.sum())
        sums = (ranks.sum(student_sums)[first:], ranks.sum(teacher_sums)[first:])
        return region_contrast(*sums, total, ranks.sum(pixels)[first:], everywhere)

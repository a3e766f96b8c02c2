"""PLOP: Learning without Forgetting for Continual Semantic Segmentation (Douillard et al., CVPR 2021)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contseg.losses.confidence import class_histogram, entropy, first_best, histogram_median
from contseg.losses.cross_entropy import cross_entropy
from contseg.losses.pod import Regions, fold_new_classes, local_pod_loss
from contseg.methods.method import Method, StepContext
from contseg.methods.pseudo_labels import pseudo_labelled
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Several, Share, Weight
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class PLOP(Method):
    """Local distillation of features + pseudo-labels where the teacher is confident; new classifiers start from background.

    This is the paper's version: entropy is summed over classes and normalised by log(old classes); the threshold of a class
    is the median of its entropies; the regions of the pyramid follow height and width. `released` computes something else,
    see `PLOPReleased`.

    Both square the maps before pooling. Both multiply all pixels of an image by its weight, the share of its background on
    which the teacher is confident, as released.

    Args:
        pod: weight of the distance of a feature map (0.01 VOC, 0.001 ADE20K).
        pod_logits: weight of the distance of the logits (0.0005 VOC, 0.00001 ADE20K).
        bins: of the histogram behind the median; `released` always has 100.
        floor: smallest threshold of `released`.
    """

    pod: Weight = 0.01
    pod_logits: Weight = 0.0005
    bins: Several = 1000
    floor: Share = 0.001

    name = "plop"
    first_step_is_plain = True
    taps = ("stage1", "stage2", "stage3", "stage4", "head", "logits")
    needs_teacher = True
    new_classes_start_from = "background"

    regions: ClassVar[Regions] = "fit"
    """How a map is divided, see `local_pod_embedding`."""
    empty_weight: ClassVar[float] = 1.0
    """Weight of an image without background."""

    @property
    def histogram_bins(self) -> int:
        """Bins of the histogram that the thresholds come from."""
        return self.bins

    def uncertainty(self, probabilities_BOHW: Tensor, seen_count: int) -> Tensor:
        """Uncertainty of the teacher in each pixel: (B, H, W) in [0, 1]."""
        return entropy(probabilities_BOHW)

    def thresholds(self, histogram_KM: Tensor) -> Tensor:
        """Threshold of each class from the histogram (K, M) of its uncertainties: (K,) float32."""
        return histogram_median(histogram_KM).float()

    def before_step(self, context: StepContext) -> None:
        """Compute a threshold per old class from the teacher's uncertainty on the background of `context.loader`."""
        if context.predict_teacher is None or context.step.new_count == 0:
            return
        count, bins = context.step.seen_count, self.histogram_bins
        histogram = torch.zeros(count, bins, dtype=torch.int64, device=context.student.mean.device)
        for batch in context.loader:
            predicted, uncertainty = self.guess(context.predict_teacher(batch), batch.size, count)
            background = batch.labels == 0
            histogram += class_histogram(uncertainty[background], predicted[background], count, bins)
        self.state["thresholds"] = self.thresholds(context.ranks.sum(histogram))

    def guess(self, teacher: SegmenterOutput, size: tuple[int, int], seen_count: int) -> tuple[Tensor, Tensor]:
        """The teacher's class of each pixel and its uncertainty: (B, H, W) int64 and float."""

        def guessed(logits_BOHW: Tensor) -> tuple[Tensor, Tensor]:
            probabilities = logits_BOHW.softmax(dim=1)
            return first_best(probabilities), self.uncertainty(probabilities, seen_count)

        return per_pixel(guessed, size, teacher)

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Replace background by the teacher's class where the teacher is confident, and ignore it elsewhere (eq. 8).

        The weight of an image is the share of its background that was kept (eq. 9). Annotated old labels (replay memory) are
        truth and kept, and so is background in an image where all old classes were annotated.
        """
        if teacher is None or context.step.new_count == 0:
            return batch
        predicted, uncertainty = self.guess(teacher, batch.size, context.step.seen_count)
        confident = uncertainty < self.kept("thresholds", predicted.device)[predicted]
        return pseudo_labelled(batch, predicted, confident, context.step.old_count, self.empty_weight)

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Cross-entropy, each image multiplied by its weight; mean over all pixels."""
        loss = per_pixel(cross_entropy, batch.size, output, batch.labels)
        if batch.weights is not None:
            loss = loss * batch.weights[:, None, None]
        return loss.mean()

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy on pseudo-labels + local POD of every stage, the head and the logits (eq. 10)."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is not None:
            terms["pod"] = self.distance(list(teacher.features.values()), list(student.features.values()), context)
        return terms

    def distance(self, old_maps: list[Tensor], new_maps: list[Tensor], context: StepContext) -> Tensor:
        """Local POD over pairs of maps, the last of which are logits."""
        step = context.step
        folded = [*new_maps[:-1], fold_new_classes(new_maps[-1], step.old_count)]
        factors = [self.pod] * (len(folded) - 1) + [self.pod_logits]
        growth = math.sqrt(step.seen_count / step.new_count) if step.new_count else 1.0
        return local_pod_loss(old_maps, folded, factors, growth, self.regions)

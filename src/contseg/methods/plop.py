"""PLOP: Learning without Forgetting for Continual Semantic Segmentation (Douillard et al., CVPR 2021)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from contseg.losses.confidence import class_histogram, entropy, histogram_median, mean_entropy, released_median
from contseg.losses.cross_entropy import cross_entropy
from contseg.losses.pod import fold_new_classes, local_pod_loss
from contseg.methods.method import Method, StepContext
from contseg.methods.pseudo_labels import pseudo_labelled
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class PLOP(Method):
    """Local distillation of features + pseudo labels where the teacher is sure; new classifiers start from background.

    Two variants, because the released code computes something else than the paper says:

    * `paper`: entropy summed over classes, in parts of log(old classes); the threshold of a class is the median of its
      entropies; regions of the pyramid follow height and width.
    * `released`: entropy *averaged* over classes and divided by a second logarithm; a walk over 100 bins in place of the
      median (see `released_median`), never below 0.001; square regions. Its rule is what published numbers come from as
      far as can be told, but with 50 old classes or more it accepts every background pixel.

    Both square the maps before pooling, and both use the factor of an image (the share of its background that the teacher
    is sure of) on all of its pixels, as released.

    Args:
        pod: weight of a feature map's distance (0.01 VOC, 0.001 ADE20K).
        pod_logits: the same for the logits (0.0005 VOC, 0.00001 ADE20K).
        variant: see above.
        bins: of the histogram behind the `paper` median; `released` has 100.
        floor: smallest threshold of `released`.
    """

    pod: float = 0.01
    pod_logits: float = 0.0005
    variant: Literal["paper", "released"] = "paper"
    bins: int = 1000
    floor: float = 0.001

    name = "plop"
    first_step_is_plain = True
    taps = ("stage1", "stage2", "stage3", "stage4", "head", "logits")
    needs_teacher = True
    new_classes_start_from = "background"

    def uncertainty(self, probabilities_BOHW: Tensor, seen_count: int) -> Tensor:
        """u(pixel) of the teacher: (B, H, W) in [0, 1]."""
        if self.variant == "paper":
            return entropy(probabilities_BOHW)
        return mean_entropy(probabilities_BOHW) / math.log(seen_count)

    def before_step(self, context: StepContext) -> None:
        """Thresholds per old class, from the teacher's uncertainty on the background of `context.loader`."""
        if context.predict_teacher is None or context.step.new_count == 0:
            return
        count = context.step.seen_count
        bins = self.bins if self.variant == "paper" else 100
        histogram = torch.zeros(count, bins, dtype=torch.int64, device=context.student.mean.device)
        for batch in context.loader:
            probabilities = context.predict_teacher(batch).logits_at(batch.size).softmax(dim=1)
            background = batch.labels == 0
            values = self.uncertainty(probabilities, count)[background]
            histogram += class_histogram(values, probabilities.argmax(dim=1)[background], count, bins)
        self.state["thresholds"] = self.thresholds(context.ranks.sum(histogram))

    def thresholds(self, histogram_KM: Tensor) -> Tensor:
        """The threshold of each class from the histogram of its uncertainties: (K,) float32."""
        if self.variant == "paper":
            return histogram_median(histogram_KM).float()
        return released_median(histogram_KM).clamp(min=self.floor)

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Background becomes the teacher's class where the teacher is sure, and is ignored elsewhere (eq. 8).

        The weight of an image is the share of its background that was kept (eq. 9). Old labels that were annotated
        (replay memory) are truth and stay, and so does background where all old classes were annotated.
        """
        if teacher is None or context.step.new_count == 0:
            return batch
        probabilities = teacher.logits_at(batch.size).softmax(dim=1)
        said = probabilities.argmax(dim=1)
        thresholds = self.state["thresholds"].to(said.device)
        sure = self.uncertainty(probabilities, context.step.seen_count) < thresholds[said]
        empty_weight = 1.0 if self.variant == "paper" else 0.0
        return pseudo_labelled(batch, said, sure, context.step.old_count, empty_weight)

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Cross-entropy, each image times its weight; mean over all pixels."""
        loss = cross_entropy(logits_BKHW, batch.labels)
        if batch.weights is not None:
            loss = loss * batch.weights[:, None, None]
        return loss.mean()

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Eq. 10: cross-entropy on pseudo labels + local POD of every stage, the head and the logits."""
        terms = {"cross_entropy": self.supervise(student.logits_at(batch.size), batch, context)}
        if teacher is not None:
            terms["pod"] = self.distance(list(teacher.features.values()), list(student.features.values()), context)
        return terms

    def distance(self, old_maps: list[Tensor], new_maps: list[Tensor], context: StepContext) -> Tensor:
        """Local POD over pairs of maps, of which the last are logits."""
        step = context.step
        folded = [*new_maps[:-1], fold_new_classes(new_maps[-1], step.old_count)]
        factors = [self.pod] * (len(folded) - 1) + [self.pod_logits]
        growth = math.sqrt(step.seen_count / step.new_count) if step.new_count else 1.0
        return local_pod_loss(old_maps, folded, factors, growth, "fit" if self.variant == "paper" else "square")

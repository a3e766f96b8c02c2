"""UCD: Uncertainty-aware Contrastive Distillation (Yang et al., TPAMI 2022), on MiB."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.classes import IGNORE
from contseg.losses.prototypes import nearest
from contseg.losses.weighted_contrast import ContrastSet, weighted_contrast
from contseg.methods.method import StepContext
from contseg.methods.mib import MiB
from contseg.models.layers import resize
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Factor, Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class UCD(MiB):
    """Contrast between the pixels of a batch, over the features of student and teacher, in addition to MiB.

    Pixels of one class attract each other and repel those of other classes. An unlabelled pixel has the class that the
    teacher sees. A pair counts as much as the teacher believes that both pixels have one class, and fully if both were
    annotated. Labels are resized to the features by nearest neighbour; ignored pixels take no part.

    The similarities of all pairs are computed in blocks, so that memory grows with the pixels of a batch; time grows with
    their square.

    Args:
        distillation: weight of the distillation of MiB.
        contrast: weight of the contrast; 0 omits it.
        temperature: of the contrast.
    """

    contrast: Weight = 0.01
    temperature: Factor = 0.07

    name = "ucd"
    first_step_is_plain = True
    taps = ("head",)
    whole_batch_terms = ("contrast",)

    shifted: ClassVar[bool] = False
    """Whether the numerator alone is shifted."""
    certain_truth: ClassVar[bool] = True
    """Whether pairs of annotated pixels have weight 1."""

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """The terms of MiB + contrast."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is not None and self.contrast:
            terms["contrast"] = self.contrast * self.contrasted(batch, student, teacher, context)
        return terms

    def contrasted(self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput, context: StepContext) -> Tensor:
        """Mean contrast of the pixels of a batch with those of all ranks."""
        among, anchors, own = self.positions(batch, student, teacher, context)
        total, count = weighted_contrast(anchors, among, own, self.temperature, self.shifted)
        number = context.ranks.sum(count).to(total) / context.ranks.count
        return total / number.clamp(min=1 / context.ranks.count)

    def positions(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput, context: StepContext
    ) -> tuple[ContrastSet, Tensor, Tensor]:
        """The positions of all ranks to compare with, the features (N, D) of the anchors here, and their indices there."""
        features = precise(student.features["head"])
        size = (features.shape[2], features.shape[3])
        teacher_logits = resize(teacher.logits, size)  # the sizes differ in adopted models alone
        labels = self.small_labels(batch.labels, size, context.step)
        guessed = labels == 0
        seen = teacher_logits.argmax(dim=1)
        denied = batch.annotated.gather(1, seen.flatten(1)).view_as(seen)  # a background label means that it is absent
        labels = seen.where(~denied, 0).where(guessed, labels)
        labels = labels.where(labels != IGNORE, 0)
        anchors = labels > 0
        gather = context.ranks.gather
        with torch.no_grad():
            every, supposed = gather(labels), gather(guessed.to(torch.int64)).bool()
            units, before = (_rows(gather(functional.normalize(one, dim=1))) for one in (features, _head(teacher)))
            scores = _rows(gather(teacher_logits.softmax(dim=1)))
            used, taught = (every > 0).flatten(), ((every > 0) & supposed).flatten()
            both = [(units[used], used), (before[taught], taught)]
            among = ContrastSet(
                torch.cat([vectors for vectors, _ in both]),
                torch.cat([every.flatten()[mask] for _, mask in both]),
                torch.cat([scores[mask] for _, mask in both]),
                torch.cat([~supposed.flatten()[mask] for _, mask in both]) if self.certain_truth else None,
            )
            first = context.ranks.rank * labels.numel()
            index = used.cumsum(dim=0) - 1
            own = index[first : first + labels.numel()][anchors.flatten()]
        return among, _rows(features)[anchors.flatten()], own

    def small_labels(self, labels_BHW: Tensor, size: tuple[int, int], step: Step) -> Tensor:
        """Labels at the size of the features, by nearest neighbour: (B, *size), 0 for background and 255 for ignored."""
        return nearest(labels_BHW, size)


def _head(output: SegmenterOutput) -> Tensor:
    return precise(output.features["head"])


def _rows(maps_BDHW: Tensor) -> Tensor:
    """(B, D, H, W) to (B H W, D)."""
    return maps_BDHW.permute(0, 2, 3, 1).flatten(0, 2)

"""DKD: Decomposed Knowledge Distillation for Class-Incremental Semantic Segmentation (Baek et al., NeurIPS 2022)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.one_vs_rest import binary_cross_entropy, decomposed
from contseg.methods.method import StepContext
from contseg.methods.one_vs_rest import OneVsRest
from contseg.models.layers import resize
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import Weight
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class DKD(OneVsRest):
    """Distillation of the logits of old classes and of their positive and negative reasons, each binary.

    A logit is a sum over features of f_d w_cd. Its positive part (w > 0) and its negative part (w < 0) are distilled each on
    its own, because a forgetting student may keep the sum and exchange the reasons. An auxiliary classifier learns to be
    negative for every pixel that was ever seen; new classes start from it. Old classes have no weight decay.

    DKD-M is this method with a replay memory (`scenario.memory`).

    Args:
        distillation: weight of the distillation of logits, at full resolution.
        positive, negative: weights of the distillation of the two parts, at the resolution of the features.
        auxiliary: weight of the auxiliary classifier's term.

    A term with weight 0 is omitted.
    """

    positive_weight_first: Weight = 2.0
    positive_weight: Weight = 1.0
    distillation: Weight = 5.0
    positive: Weight = 5.0
    negative: Weight = 5.0
    auxiliary: Weight = 1.0

    name = "dkd"
    backgrounds = ("auxiliary",)
    new_classes_start_from = "auxiliary"

    @property
    def taps(self) -> tuple[str, ...]:
        """The input of the classifiers and the output of the auxiliary one."""
        return ("head", *self.first_taps)

    @property
    def first_taps(self) -> tuple[str, ...]:
        """The output of the auxiliary classifier."""
        return ("auxiliary",) if self.auxiliary else ()

    def first_step_key(self) -> dict[str, Any]:
        """What changes step 0."""
        return {
            "method": self.name,
            "variant": self.variant,
            "positive_weight": self.positive_weight_first,
            "auxiliary": self.auxiliary,
        }

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """In later steps, only the new classifiers have weight decay."""
        if not step.old_count:
            return super().parameter_groups(segmenter, step)
        new = {id(parameter) for parameter in segmenter.classifier.steps[-1].parameters()}
        learning = [parameter for parameter in segmenter.parameters() if parameter.requires_grad]
        old = [parameter for parameter in learning if id(parameter) not in new]
        return [
            {"params": old, "lr_factor": 1.0, "weight_decay": 0.0},
            {"params": [parameter for parameter in learning if id(parameter) in new], "lr_factor": 1.0},
        ]

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term + auxiliary classifier + distillation of logits, positive and negative parts (eq. 3 to 9)."""
        terms = super().losses(batch, student, teacher, context)
        if self.auxiliary:
            outside = functional.softplus(resize(student.features["auxiliary"], batch.size))
            terms["auxiliary"] = self.auxiliary * outside.mean()
        if teacher is None:
            return terms
        old = teacher.logits.shape[1]
        if self.distillation:
            targets = teacher.logits_at(batch.size)[:, 1:].sigmoid()
            terms["distillation"] = self.distillation * _mean(student.logits_at(batch.size)[:, 1:old], targets)
        if self.positive or self.negative:
            assert context.teacher is not None
            ours = decomposed(student.features["head"], weights_of(context.student, old - 1))
            theirs = decomposed(teacher.features["head"], weights_of(context.teacher, old - 1))
            for name, weight, own, target in zip(
                ("positive", "negative"), (self.positive, self.negative), ours, theirs, strict=True
            ):
                if weight:
                    terms[name] = weight * _mean(own, target.sigmoid())
        return terms


def weights_of(segmenter: Segmenter, count: int) -> Tensor:
    """The weights (count, channels, 1, 1) of the classifiers of the first classes, without background."""
    return torch.cat([step.get_parameter("weight") for step in segmenter.classifier.steps])[:count]


def _mean(logits_BNHW: Tensor, targets_BNHW: Tensor) -> Tensor:
    """Binary cross-entropy, mean over images and pixels, sum over classes."""
    return binary_cross_entropy(logits_BNHW, targets_BNHW).sum(dim=1).mean()

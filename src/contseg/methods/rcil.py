"""RCIL: Representation Compensation Networks for Continual Semantic Segmentation (Zhang et al., CVPR 2022)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.losses.pod import fold_new_classes
from contseg.losses.pooled_cube import channel_distance, spatial_distance
from contseg.methods.method import StepContext
from contseg.methods.mib import MiB
from contseg.models.branches import TwoBranches
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class RCIL(MiB):
    """MiB on a network with two branches, of which later steps freeze one; pooled cube distillation of all maps.

    Every 3x3 convolution of the backbone (of a ResNet-18 or -34, the second one of a block) and the pyramid of the head have
    two branches, which training mixes at random by channel. At the start of a later step their mean is merged into the first
    branch, which is then frozen; the second one continues to learn.

    New classifiers start with the weights of background and random biases, and background's bias stays as it is: the
    released code balances them for one dataset only. The maps of the stages are compared after their activation.

    Args:
        distillation: weight of MiB's distillation.
        spatial, spatial_last: weights of the distance of averages over windows: of a feature map, and of the logits.
        channel, channel_last: weights of the distance of averages over channels: of a stage, and of the head.
        init: where the second branch starts in a later step: `released` leaves it, so the step starts with another function
            than the last one ended with. `preserving` starts with the merged weights, so in evaluation mode the function is
            the same.
    """

    distillation: Weight = 100.0
    spatial: Weight = 0.01
    spatial_last: Weight = 0.0005
    channel: Weight = 0.01
    channel_last: Weight = 0.0005
    init: Literal["released", "preserving"] = "released"

    name = "rcil"
    first_step_is_plain = True
    taps = ("stage1", "stage2", "stage3", "stage4", "head", "logits")
    new_classes_start_from = "random"

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """As MiB; backbone and head must have two branches."""
        super().check(network, steps)
        if getattr(network.backbone, "branches", 1) != 2 or network.head.name != "deeplabv3-rcil":
            raise ContsegError(
                f"network.head: method '{self.name}' merges two branches, and {network.title} has one; set"
                " network.head.name=deeplabv3-rcil and network.backbone.branches=2, over a ResNet"
            )
        if getattr(self, "fusion", None) is not None:
            raise ContsegError(
                f"method.fusion: '{self.name}' merges branches at the start of a step, so weights before and after it do not"
                " correspond; set method.fusion=null"
            )

    @torch.no_grad()
    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """In later steps, merge the branches, freeze the first ones, and start new classifiers from background's weights."""
        if not step.old_count:
            return
        doubled = {name: module for name, module in segmenter.named_modules() if isinstance(module, TwoBranches)}
        for module in doubled.values():
            module.merge(self.init)
        segmenter.freeze(*(f"{name}.{part}" for name, module in doubled.items() for part in module.first_parts))
        if step.new_count:
            weight = segmenter.classifier.steps[-1].get_parameter("weight")
            weight.copy_(segmenter.classifier.steps[0].get_parameter("weight")[:1].expand_as(weight))

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Terms of MiB + distances of the maps averaged over windows and over channels (eq. 6 and 7)."""
        terms = super().losses(batch, student, teacher, context)
        if teacher is not None:
            activate = context.student.backbone.activate
            old_maps, new_maps = (
                [*map(activate, map(precise, list(output.features.values())[:4])), *list(output.features.values())[4:]]
                for output in (teacher, student)
            )
            terms |= self.distances(old_maps, new_maps, context.step)
        return terms

    def distances(self, old_maps: Sequence[Tensor], new_maps: Sequence[Tensor], step: Step) -> dict[str, Tensor]:
        """Both distances of the maps of four stages after activation, the head, and the logits."""
        growth = math.sqrt(step.seen_count / step.new_count) if step.new_count else 1.0
        *features, logits = new_maps
        pairs = list(zip(old_maps, [*features, fold_new_classes(logits, step.old_count)], strict=True))
        terms = {}
        for term, distance, some, weights in (
            ("spatial", spatial_distance, pairs, (self.spatial, self.spatial_last)),
            ("channel", channel_distance, pairs[:-1], (self.channel, self.channel_last)),
        ):
            factors = [weights[0]] * (len(some) - 1) + [weights[1]]
            used = [factor * distance(*pair) for factor, pair in zip(factors, some, strict=True) if factor]
            if used:
                terms[term] = growth * torch.stack(used).sum() / len(some)
        return terms

"""SSUL: Semantic Segmentation with Unknown Label for Exemplar-based Class-Incremental Learning (Cha et al., 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class SSUL(Method):
    """An output for what is not learned yet, from which new classes start; pseudo labels; and only classifiers learn later.

    Background is divided: a pixel that no step has named may be *unknown*, a class to come, if a saliency map says that
    something is there (or everywhere, without saliency maps: policy `ssul`). Later steps hold the backbone, the head, the
    norms and the old classifiers, so that nothing can be forgotten; what is learned are the classifiers of the new
    classes, of the unknown, and, slowly, of background.

    SSUL-M is this method with a replay memory (`scenario.memory`).

    Args:
        threshold: the teacher's score from which on its class replaces background.
        background_factor: of the learning rate, for background's classifier in later steps.
    """

    threshold: float = 0.7
    background_factor: float = 1e-4

    name = "ssul"
    needs_teacher = True
    new_classes_start_from = "unknown"
    handles_unknown = True
    needs_unknown = True

    def first_step_key(self) -> dict[str, Any]:
        """Every output is learned on its own from the start."""
        return FIRST_STEP

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """The network must decide output by output."""
        super().check(network, steps)
        require_sigmoid(network, self.name)

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Hold what is learned."""
        if freezes(step):
            learn_classifiers_only(segmenter)

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """Background's classifier learns slowly in later steps."""
        if freezes(step):
            return classifier_groups(segmenter, self.background_factor)
        return super().parameter_groups(segmenter, step)

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Unknown and background become the teacher's class where its score reaches the threshold."""
        if teacher is None:
            return batch
        score, said = opinion(teacher, batch.size).max(dim=1)
        return fill_in(batch, said, score >= self.threshold, context.step.foreground)

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over valid pixels."""
        return supervise_each_output(logits_BKHW, batch, context)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """The supervised term alone."""
        return {"cross_entropy": self.supervise(student.logits_at(batch.size), batch, context)}

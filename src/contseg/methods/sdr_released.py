"""SDR as its released code computes it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.losses.prototypes import class_means, matching
from contseg.losses.released_sdr import (
    misread_errors,
    misread_sums,
    released_attraction,
    released_repulsion,
    without_lowest,
)
from contseg.losses.sparsity import class_maxima, sparsity
from contseg.methods.method import StepContext
from contseg.methods.sdr import SDR, all_annotated


@dataclass(frozen=True)
class SDRReleased(SDR):
    """Features of a class have their channels mixed up; for a single image they are correct except in matching.

    See `losses.released_sdr`. Attraction acts almost only on the highest class. Every label updates its prototype except 255
    and, unless background or all old classes are annotated in the whole batch, the lowest label in the batch. Features and
    classes are those of one rank, and the prototypes of rank 0 are saved and used in the next step. A class without a
    prototype is at the origin. The checks of the paper's version are missing: a pixel whose channels have a negative sum, as
    after a leaky ReLU, has a negative sparsity.
    """

    variant = "released"

    def annotated_sums(
        self, features_BDHW: Tensor, labels_BHW: Tensor, annotated_BK: Tensor, context: StepContext
    ) -> tuple[Tensor, Tensor]:
        """Misread sums of all classes, without the lowest one unless it hides no other class."""
        sums, added = misread_sums(features_BDHW, labels_BHW, len(self.state["counts"]))
        kept = without_lowest(added > 0) | all_annotated(annotated_BK, context.step.old_count).all()
        return sums.where(kept[:, None], 0.0), added.where(kept, 0)

    def contrast(self, features_BDHW: Tensor, labels_BHW: Tensor, context: StepContext) -> dict[str, Tensor]:
        """Attraction and repulsion of misread features."""
        prototypes, seen = self.prototypes(features_BDHW)
        sums, counts = misread_sums(features_BDHW, labels_BHW, len(seen))
        terms = {}
        if self.attraction:
            errors = misread_errors(features_BDHW, labels_BHW, prototypes)
            terms["attraction"] = self.attraction * released_attraction(errors, counts, counts > 0)
        if self.repulsion:
            terms["repulsion"] = self.repulsion * released_repulsion(class_means(sums, counts), counts > 0)
        return terms

    def match(self, features_BDHW: Tensor, known_BHW: Tensor, context: StepContext) -> Tensor:
        """Matching of misread means, also to prototypes at the origin."""
        prototypes, seen = self.prototypes(features_BDHW)
        sums, counts = misread_sums(features_BDHW, known_BHW, len(seen), "pixels first")
        return matching(class_means(sums, counts), prototypes, counts > 0)

    def sparse(self, features_BDHW: Tensor, labels_BHW: Tensor, context: StepContext) -> Tensor:
        """Sparsity with the maxima of this rank, without checks."""
        maxima = class_maxima(features_BDHW, labels_BHW)
        return sparsity(features_BDHW, maxima[labels_BHW].unsqueeze(1))

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Use the prototypes of rank 0 on all ranks."""
        super().after_step(context)
        for name, value in self.state.items():
            self.state[name] = context.ranks.gather(value.to(context.student.mean.device)[None])[0]

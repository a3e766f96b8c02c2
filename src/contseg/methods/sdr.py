"""SDR: repulsion and attraction of sparse and disentangled latent representations (Michieli & Zanuttigh, CVPR 2021)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.losses.confidence import first_best
from contseg.losses.prototypes import (
    attraction,
    class_errors,
    class_means,
    class_sums,
    matching,
    nearest,
    repulsion,
    update_prototypes,
)
from contseg.losses.sparsity import class_maxima, sparsity
from contseg.methods.method import Method, StepContext
from contseg.methods.mib import MiB
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class SDR(MiB):
    """Attraction of features to class prototypes, repulsion of classes, matching of prototypes, and sparse features.

    Features are those of the backbone's last stage after its activation; labels are resized to them by nearest neighbour.
    The prototype of a class is the mean of its features over all iterations and steps so far. Each batch updates it before
    the losses, without gradient. Sparsity is part of every step, the other terms of step 1 and later.

    This is the paper's version: the formulas of `losses.prototypes`, over the images of all ranks. A prototype is updated
    only by images in which its class was annotated. This includes background in the setting `sequential` and in steps by
    domain, and old classes there and in exemplars. Classes without a prototype are neither attracted nor matched.
    `released` computes something else, see `SDRReleased`.

    In published runs in the setting `disjoint`, background has a prototype from step 0 on. A method cannot know that
    background hides no future class, so here it has none, as published for `overlapped`.

    Args:
        on: `mib`, with unbiased cross-entropy and unbiased distillation as in MiB; or `alone`, with plain cross-entropy.
        distillation: weight of the unbiased distillation, with `mib`.
        matching: weight of the distance from class means, where the teacher predicts old classes, to prototypes.
        attraction: weight of the distance from features to the prototypes of their classes.
        repulsion: weight of the inverse distance between class means.
        sparsity: weight of sum_d exp(g_d) / sum_d g_d, where g are features divided by the maximum of their class.

    A term with weight 0 is omitted.
    """

    on: Literal["mib", "alone"] = "mib"
    distillation: Weight = 100.0
    matching: Weight = 0.01
    attraction: Weight = 0.001
    repulsion: Weight = 0.001
    sparsity: Weight = 0.001

    name = "sdr"
    taps = ("stage4",)
    first_taps = ("stage4",)
    new_classes_start_from = "random"
    whole_batch_terms = ("prototypes", "matching", "attraction", "repulsion", "sparsity")

    def first_step_key(self) -> dict[str, Any]:
        """Sparsity changes the weights of step 0, and the variant its prototypes."""
        return {"method": self.name, "sparsity": self.sparsity, "variant": self.variant}

    def before_step(self, context: StepContext) -> None:
        """Add prototypes of new classes at the origin, with count 0. Step 0 clears all of them."""
        classes, depth, like = context.step.seen_count, context.student.backbone.channels[-1], context.student.mean
        prototypes, counts = like.new_zeros(classes, depth), torch.zeros(classes, dtype=torch.int64, device=like.device)
        if self.state and context.step.old_count:
            old = len(self.state["counts"])
            prototypes[:old], counts[:old] = self.state["prototypes"], self.state["counts"]
        self.state.update(prototypes=prototypes, counts=counts)

    @property
    def is_unbiased(self) -> bool:
        """As MiB, unless `alone`."""
        return self.on == "mib" and type(self).supervise is SDR.supervise

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """As MiB, or plain cross-entropy with `alone`."""
        if self.on == "alone":
            return Method.supervise(self, output, batch, context)
        return super().supervise(output, batch, context)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Terms of MiB (or the supervised term alone) + matching + attraction + repulsion + sparsity."""
        losses = super().losses if self.on == "mib" else super(MiB, self).losses
        terms = losses(batch, student, teacher, context)
        features = features_of(student, context)
        labels = nearest(batch.labels, (features.shape[2], features.shape[3]))
        self.remember(features, labels, batch.annotated, context)
        if teacher is not None:
            if self.matching:
                known = old_classes_in(batch, labels, teacher, context)
                terms["matching"] = self.matching * self.match(features, known, context)
            terms |= self.contrast(features, labels, context)
        if self.sparsity:
            terms["sparsity"] = self.sparsity * self.sparse(features, labels, context)
        return terms

    @torch.no_grad()
    def remember(self, features_BDHW: Tensor, labels_BHW: Tensor, annotated_BK: Tensor, context: StepContext) -> None:
        """Update the prototypes with a batch."""
        prototypes, counts = self.prototypes(features_BDHW)
        added = self.annotated_sums(features_BDHW, labels_BHW, annotated_BK, context)
        prototypes, counts = update_prototypes(prototypes, counts, *added)
        self.state.update(prototypes=prototypes, counts=counts)

    def annotated_sums(
        self, features_BDHW: Tensor, labels_BHW: Tensor, annotated_BK: Tensor, context: StepContext
    ) -> tuple[Tensor, Tensor]:
        """Sums of features and pixels, (K, D) and (K,), over the pixels that update the prototypes."""
        marked = annotated_BK.gather(1, labels_BHW.where(labels_BHW != IGNORE, 0).flatten(1)).view_as(labels_BHW)
        sums, added = class_sums(features_BDHW, labels_BHW.where(marked, IGNORE), len(self.state["counts"]))
        return context.ranks.sum(sums), context.ranks.sum(added)

    def prototypes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Prototypes in the precision of the features, and their counts; on the device of the features."""
        return self.kept("prototypes", features.device).to(features), self.kept("counts", features.device)

    def contrast(self, features_BDHW: Tensor, labels_BHW: Tensor, context: StepContext) -> dict[str, Tensor]:
        """Attraction and repulsion of the labelled classes, including background."""
        prototypes, seen = self.prototypes(features_BDHW)
        total = context.ranks.sum
        sums, counts = map(total, class_sums(features_BDHW, labels_BHW, len(seen)))
        terms = {}
        if self.attraction:
            errors = total(class_errors(features_BDHW, labels_BHW, prototypes))
            terms["attraction"] = self.attraction * attraction(errors, counts, (counts > 0) & (seen > 0))
        if self.repulsion:
            terms["repulsion"] = self.repulsion * repulsion(class_means(sums, counts), counts > 0)
        return terms

    def match(self, features_BDHW: Tensor, known_BHW: Tensor, context: StepContext) -> Tensor:
        """Distance from the mean features of old classes to their prototypes."""
        prototypes, seen = self.prototypes(features_BDHW)
        sums, counts = map(context.ranks.sum, class_sums(features_BDHW, known_BHW, len(seen)))
        return matching(class_means(sums, counts), prototypes, (counts > 0) & (seen > 0))

    def sparse(self, features_BDHW: Tensor, labels_BHW: Tensor, context: StepContext) -> Tensor:
        """Sparsity; the features of a pixel are divided by the maximum of its label in the images of all ranks."""
        probe = features_BDHW[:0]
        if context.student.backbone.activate(probe) is probe:  # without activation, the sum over channels may be 0
            features_BDHW = features_BDHW.relu()
        maxima = context.ranks.gather(class_maxima(features_BDHW, labels_BHW)[None]).amax(dim=0)
        return sparsity(features_BDHW, maxima[labels_BHW].unsqueeze(1), guarded=True)

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Compute the prototypes from one pass if step 0 was not trained here (`start_from`)."""
        if context.epochs == 0:
            student = context.student
            training = student.training
            student.eval()  # so that the statistics of norms do not change
            for batch in context.loader:
                features = features_of(student(student.normalise(batch.images), taps=self.first_taps), context)
                labels = nearest(batch.labels, (features.shape[2], features.shape[3]))
                self.remember(features, labels, batch.annotated, context)
            student.train(training)


def features_of(output: SegmenterOutput, context: StepContext) -> Tensor:
    """Last map of the backbone after its activation, (B, D, h, w), in float32 or better."""
    return context.student.backbone.activate(precise(output.features["stage4"]))


def all_annotated(annotated_BK: Tensor, old_count: int) -> Tensor:
    """Images in which all old classes are annotated, so that background hides none of them: (B,) bool."""
    if old_count > 1:
        return annotated_BK[:, 0] | annotated_BK[:, 1:old_count].all(dim=1)
    return annotated_BK[:, 0]


def old_classes_in(batch: Batch, labels_BHW: Tensor, teacher: SegmenterOutput, context: StepContext) -> Tensor:
    """Old class of each pixel, (B, h, w) at the size of the labels; 255 elsewhere and for background.

    Annotated old labels are truth (sequential setting, exemplars). Elsewhere a background label becomes the teacher's class,
    unless that class was annotated in the image: there the background label is truth.
    """
    old, annotated, foreground = context.step.old_count, batch.annotated, int(context.step.table.has_background)
    predicted = per_pixel(first_best, batch.size, teacher)
    predicted = nearest(predicted, (labels_BHW.shape[1], labels_BHW.shape[2]))
    marked, denied = (
        annotated.gather(1, classes.flatten(1)).view_as(labels_BHW)
        for classes in (labels_BHW.where(labels_BHW < old, 0), predicted)
    )
    hiding = (labels_BHW == 0) & ~all_annotated(annotated, old)[:, None, None]
    known = labels_BHW.where((labels_BHW < old) & marked, IGNORE)
    known = predicted.where(hiding & ~denied, known)
    return known.where(known >= foreground, IGNORE)

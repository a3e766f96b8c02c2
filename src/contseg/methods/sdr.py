"""SDR: repulsion and attraction of sparse and disentangled latent representations (Michieli & Zanuttigh, CVPR 2021)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.losses.cross_entropy import unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
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
from contseg.losses.released_sdr import (
    misread_errors,
    misread_sums,
    released_attraction,
    released_repulsion,
    without_lowest,
)
from contseg.losses.sparsity import class_maxima, sparsity
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.precision import precise
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class SDR(Method):
    """Features of a class stay near its prototype, classes stay apart, and few channels are active in a pixel.

    Features are those of the backbone's last stage, after activation; labels are brought to their size by nearest neighbour.
    The prototype of a class is the mean of its features over all iterations and steps so far. It is moved by each batch
    before the losses, without gradient. Sparsity acts at every step, the other terms from step 1 on.

    Two variants, because the released code computes something else than it means to:

    * `paper`: the formulas of `losses.prototypes`, over the images of all ranks. A class moves its prototype where its label
      is truth, that is where the class was annotated: background in the setting `sequential` and in steps by domain, and old
      classes there and in exemplars. A class without a prototype yet is neither attracted nor matched.
    * `released`: features of a class are read with mixed-up channels (`losses.released_sdr`; a batch of one image is right
      but for matching), attraction acts on little but the highest class, and every label moves its prototype but 255 and,
      unless background or all old classes are annotated in the whole batch, the lowest one that is there. Features and
      classes are those of one rank, and the prototypes of rank 0 are what a checkpoint and the next step have. A class
      without a prototype has the origin. None of the guards of `paper` is there: a pixel whose channels add up to something
      negative, as after a leaky ReLU, has a negative sparsity.

    Published runs in the setting `disjoint` also let background move its prototype at step 0, where nothing tells a method
    that no later class hides in it; here it has none then, as published in `overlapped`.

    Args:
        on: `mib`, unbiased cross-entropy and unbiased distillation as in MiB; or `alone`, plain cross-entropy.
        distillation: weight of the unbiased distillation, with `mib`.
        matching: weight of the distance from class means, where the teacher sees old classes, to prototypes.
        attraction: weight of the distance from features to the prototypes of their classes.
        repulsion: weight of the inverse distance between class means.
        sparsity: weight of sum_d exp(g_d) / sum_d g_d, g being features in parts of the maximum of their class.
        variant: see above.

    A term with weight 0 is left out.
    """

    on: Literal["mib", "alone"] = "mib"
    distillation: float = 100.0
    matching: float = 0.01
    attraction: float = 0.001
    repulsion: float = 0.001
    sparsity: float = 0.001
    variant: Literal["paper", "released"] = "paper"

    name = "sdr"
    needs_teacher = True
    taps = ("stage4",)
    first_taps = ("stage4",)

    @property
    def whole_batch_terms(self) -> tuple[str, ...]:
        """Prototypes move with every batch, and the terms compare classes over it."""
        return "prototypes", "matching", "attraction", "repulsion", "sparsity"

    def first_step_key(self) -> dict[str, Any]:
        """Sparsity shapes the weights of step 0, and the variant its prototypes."""
        return {"method": self.name, "sparsity": self.sparsity, "variant": self.variant}

    def before_step(self, context: StepContext) -> None:
        """New classes begin at the origin, as means of no pixel; step 0 begins without memory."""
        classes, depth, like = context.step.seen_count, context.student.backbone.channels[-1], context.student.mean
        prototypes, counts = like.new_zeros(classes, depth), torch.zeros(classes, dtype=torch.int64, device=like.device)
        if self.state and context.step.old_count:
            old = len(self.state["counts"])
            prototypes[:old], counts[:old] = self.state["prototypes"], self.state["counts"]
        self.state.update(prototypes=prototypes, counts=counts)

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Cross-entropy alone, at step 0 and where nothing is new; else unbiased cross-entropy. Mean as the context says."""
        if self.on == "alone" or context.step.old_count == 0 or context.step.new_count == 0:
            return super().supervise(logits_BKHW, batch, context)
        loss = unbiased_cross_entropy(logits_BKHW, batch.labels, context.step.old_count, batch.annotated)
        return loss.mean() if context.average == "all" else context.mean_over_valid(loss, batch.labels)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term + distillation + matching + attraction + repulsion + sparsity, after the prototypes have moved."""
        logits = student.logits_at(batch.size)
        features = features_of(student, context)
        labels = nearest(batch.labels, (features.shape[2], features.shape[3]))
        self.remember(features, labels, batch.annotated, context)
        terms = {"cross_entropy": self.supervise(logits, batch, context)}
        if teacher is not None:
            if self.on == "mib" and self.distillation:
                kept = unbiased_distillation(logits, teacher.logits_at(batch.size))
                terms["distillation"] = self.distillation * kept.mean()
            if self.matching:
                known = old_classes_in(batch, labels, teacher, context)
                terms["matching"] = self.matching * self.match(features, known, context)
            terms |= self.contrast(features, labels, context)
        if self.sparsity:
            terms["sparsity"] = self.sparsity * self.sparse(features, labels, context)
        return terms

    @torch.no_grad()
    def remember(self, features_BDHW: Tensor, labels_BHW: Tensor, annotated_BK: Tensor, context: StepContext) -> None:
        """Move the prototypes by a batch."""
        prototypes, counts = self.prototypes(features_BDHW)
        if self.variant == "paper":
            marked = annotated_BK.gather(1, labels_BHW.where(labels_BHW != IGNORE, 0).flatten(1)).view_as(labels_BHW)
            sums, added = class_sums(features_BDHW, labels_BHW.where(marked, IGNORE), len(counts))
            sums, added = context.ranks.sum(sums), context.ranks.sum(added)
        else:
            sums, added = misread_sums(features_BDHW, labels_BHW, len(counts))
            kept = without_lowest(added > 0) | all_annotated(annotated_BK, context.step.old_count).all()
            sums, added = sums.where(kept[:, None], 0.0), added.where(kept, 0)
        prototypes, counts = update_prototypes(prototypes, counts, sums, added)
        self.state.update(prototypes=prototypes, counts=counts)

    def prototypes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The prototypes and their counts, on the device of features (a resume puts them on the CPU), as precise as they."""
        return self.state["prototypes"].to(features), self.state["counts"].to(features.device)

    def contrast(self, features_BDHW: Tensor, labels_BHW: Tensor, context: StepContext) -> dict[str, Tensor]:
        """Attraction and repulsion of the classes that the labels tell, background among them."""
        prototypes, seen = self.prototypes(features_BDHW)
        ranks = self._ranks(context)
        paper = self.variant == "paper"
        sums, counts = map(ranks.sum, (class_sums if paper else misread_sums)(features_BDHW, labels_BHW, len(seen)))
        terms = {}
        if self.attraction:
            errors = ranks.sum((class_errors if paper else misread_errors)(features_BDHW, labels_BHW, prototypes))
            if paper:
                attracted = attraction(errors, counts, (counts > 0) & (seen > 0))
            else:
                attracted = released_attraction(errors, counts, counts > 0)
            terms["attraction"] = self.attraction * attracted
        if self.repulsion:
            pushed = (repulsion if paper else released_repulsion)(class_means(sums, counts), counts > 0)
            terms["repulsion"] = self.repulsion * pushed
        return terms

    def match(self, features_BDHW: Tensor, known_BHW: Tensor, context: StepContext) -> Tensor:
        """Mean features of old classes to their prototypes."""
        prototypes, seen = self.prototypes(features_BDHW)
        if self.variant == "paper":
            sums, counts = map(context.ranks.sum, class_sums(features_BDHW, known_BHW, len(seen)))
            return matching(class_means(sums, counts), prototypes, (counts > 0) & (seen > 0))
        sums, counts = misread_sums(features_BDHW, known_BHW, len(seen), "pixels first")
        return matching(class_means(sums, counts), prototypes, counts > 0)

    def sparse(self, features_BDHW: Tensor, labels_BHW: Tensor, context: StepContext) -> Tensor:
        """Sparsity, each pixel measured by the maximum of its label in all images (in `released`, in those of its rank)."""
        paper, probe = self.variant == "paper", features_BDHW[:0]
        if paper and context.student.backbone.activate(probe) is probe:  # there is none, and channels may add up to nothing
            features_BDHW = features_BDHW.relu()
        maxima = self._ranks(context).gather(class_maxima(features_BDHW, labels_BHW)[None]).amax(dim=0)
        return sparsity(features_BDHW, maxima[labels_BHW].unsqueeze(1), guarded=paper)

    def _ranks(self, context: StepContext) -> Ranks:
        return context.ranks if self.variant == "paper" else Ranks()

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Where step 0 was given and not learned, one look at its images makes the prototypes."""
        if context.epochs == 0:
            student = context.student
            learning = student.training
            student.eval()  # norms stay as they were given
            for batch in context.loader:
                features = features_of(student(student.normalise(batch.images), taps=self.first_taps), context)
                labels = nearest(batch.labels, (features.shape[2], features.shape[3]))
                self.remember(features, labels, batch.annotated, context)
            student.train(learning)
        if self.variant == "released":  # what a checkpoint of rank 0 brings to the next step
            for name, value in self.state.items():
                self.state[name] = context.ranks.gather(value.to(context.student.mean.device)[None])[0]


def features_of(output: SegmenterOutput, context: StepContext) -> Tensor:
    """The backbone's last map after its activation, (B, D, h, w), in float32 or better."""
    return context.student.backbone.activate(precise(output.features["stage4"]))


def all_annotated(annotated_BK: Tensor, old_count: int) -> Tensor:
    """In which images a background label hides nothing old: (B,) bool."""
    if old_count > 1:
        return annotated_BK[:, 0] | annotated_BK[:, 1:old_count].all(dim=1)
    return annotated_BK[:, 0]


def old_classes_in(batch: Batch, labels_BHW: Tensor, teacher: SegmenterOutput, context: StepContext) -> Tensor:
    """Where old classes are, (B, h, w) at the size of the labels, 255 elsewhere and where background is.

    Annotated old labels are truth (sequential setting, exemplars). Elsewhere a background label is what the teacher says,
    unless that is a class which an annotator marked: there the label says that it is not there.
    """
    old, annotated, foreground = context.step.old_count, batch.annotated, int(context.step.table.has_background)
    said = nearest(teacher.logits_at(batch.size), (labels_BHW.shape[1], labels_BHW.shape[2])).argmax(dim=1)
    marked, denied = (
        annotated.gather(1, classes.flatten(1)).view_as(labels_BHW)
        for classes in (labels_BHW.where(labels_BHW < old, 0), said)
    )
    hiding = (labels_BHW == 0) & ~all_annotated(annotated, old)[:, None, None]
    known = labels_BHW.where((labels_BHW < old) & marked, IGNORE)
    known = said.where(hiding & ~denied, known)
    return known.where(known >= foreground, IGNORE)

"""SimCIS: Rethinking Query-Based Transformer for Continual Image Segmentation (Zhu et al., CVPR 2025), on EoMT."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.losses.masks.class_terms import adaptive_distillation
from contseg.losses.masks.costs import WEIGHTS
from contseg.losses.masks.criterion import NO_OBJECT
from contseg.methods.mask_pseudo_labels import SIMCIS_SEMANTIC
from contseg.methods.mask_relabelling import incomplete, leaking, pseudo_counts, with_leaked, with_pseudo_masks
from contseg.methods.mask_supervision import Matched, match, matched_count, mean_over_update, targets_of
from contseg.methods.method import Method, StepContext
from contseg.methods.virtual_queries import VirtualQueries, virtual_weights
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.eomt.selection import best_places
from contseg.models.heads.options import EoMTOptions
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Count, Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class SimCIS(Method):
    """Queries selected among patches, a selection that stays consistent, masks of the teacher, and virtual queries.

    Needs `network.head.start: patches`. Where the paper has the decoder of Mask2Former, sigmoid classes and boxes, this has
    EoMT: classes are a softmax with no-object, and there are no boxes. Otherwise as in the paper: at the patches that the
    teacher selects, the classes of the student stay near the teacher's (new classes count as no-object); the masks of the
    teacher are targets; and stored queries of old classes are classified in every batch.

    Args:
        selection: weight of the consistent selection, 2, mean over patches. 0 omits it.
        virtual: virtual queries per image: 1; 3 in 100-5. With objects 5 in 100-5 and 0 in 100-50: none are drawn.
        power: of the weights with which old classes are drawn, 0.5; 0.25 in 100-50.
        capacity: stored queries of a class.
    """

    selection: Weight = 2.0
    virtual: Count = 1
    power: Weight = 0.5
    capacity: Count = 80

    name = "simcis"
    learns = ("masks",)
    needs_teacher = True
    taps = ("selection", "selected")
    first_taps = ("selected",)
    whole_batch_terms = ("virtual",)

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check that queries are selected."""
        if isinstance(network.head, EoMTOptions) and network.head.start != "patches":
            raise ContsegError(
                f"network.head.start: method '{self.name}' selects queries among patches, and they are"
                f" {network.head.start}; set network.head.start=patches"
            )
        super().check(network, steps)

    def before_step(self, context: StepContext) -> None:
        """Add queues for the new classes, and count the teacher's masks of each old class in the images of the step."""
        seen, device = context.step.seen_count, context.student.mean.device
        if "virtual_vectors" not in self.state:
            bank = VirtualQueries.empty(seen, context.student.head.width, max(1, self.capacity))
        else:
            bank = VirtualQueries.from_state(self.state)
            bank.grow(seen)
        self.state.update({name: value.to(device) for name, value in bank.state().items()})
        if context.predict_teacher is None or not self.virtual:
            return
        counts = torch.zeros(context.step.old_count, device=device)
        for batch in context.loader:
            found = self.relabel(batch, context.predict_teacher(batch), context)
            for one, count in zip(targets_of(found), pseudo_counts(found), strict=True):
                counts += one.classes[:count].bincount(minlength=len(counts)).to(counts)
        self.state["virtual_weights"] = virtual_weights(context.ranks.sum(counts), self.power)

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Add the masks of the teacher before the annotated ones: one per class, or one per query where objects count."""
        batch = with_leaked(batch) if self.handles_leak else batch
        if teacher is None or teacher.masks is None:
            return batch
        rule = replace(SIMCIS_SEMANTIC, merged=batch.instances is None)
        spared = incomplete(batch, context.step.old_count) | leaking(batch)
        return with_pseudo_masks(batch, teacher.masks, rule, first=True, spared_B=spared)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised terms + consistent selection + classes of virtual queries."""
        matched = match(student, batch, context)
        terms = self.mask_terms(student, batch, context, matched)
        if teacher is not None and self.selection:
            old = teacher.features["selection"]
            places = best_places(old, student.features["selected"].shape[1])[..., None]
            new, before = (
                logits.gather(1, places.expand(-1, -1, logits.shape[2])) for logits in (student.features["selection"], old)
            )
            terms["selection"] = self.selection_weight(places.shape[1]) * adaptive_distillation(new, before, gamma=None)
        if teacher is not None and self.virtual:
            drawn = self._virtual(batch, matched, context)
            terms |= {} if drawn is None else {"virtual": drawn}
        self._remember(student, matched, context)
        return terms

    def selection_weight(self, places: int) -> float:
        """The weight of the mean over the patches that the teacher selects.

        Args:
            places: number of these patches.
        """
        return self.selection

    def _bank(self, device: torch.device) -> VirtualQueries:
        for name in VirtualQueries.empty(0, 1).state():
            self.kept(name, device)
        return VirtualQueries.from_state(self.state)

    def _virtual(self, batch: Batch, matched: Matched, context: StepContext) -> Tensor | None:
        """Cross-entropy of virtual queries in all predictions, divided as the class loss of the others is; None without any.

        All ranks draw for all images, and each uses those of its own.
        """
        student, ranks, size = context.student, context.ranks, len(batch.names)
        assert isinstance(student, EoMTSegmenter)
        bank = self._bank(matched.classes.device)
        shape = (size * ranks.count, self.virtual)
        classes, vectors = bank.draw(self.state["virtual_weights"], shape, context.generator)
        if classes.shape[1] == 0:
            return None
        own = slice(ranks.rank * size, (ranks.rank + 1) * size)
        each = [precise(logits) for logits in student.virtual_logits(vectors[own].to(student.mean))]
        total = torch.stack(
            [functional.cross_entropy(one.flatten(0, 1), classes[own].flatten(), reduction="sum") for one in each]
        ).sum()
        queries = matched.classes.shape[1]

        def weights(one: Batch) -> float:
            return NO_OBJECT * len(one.labels) * queries + (1 - NO_OBJECT) * matched_count(one, queries, self.handles_leak)

        return WEIGHTS["class"] * total / mean_over_update(context, batch, weights, total)

    @torch.no_grad()
    def _remember(self, student: SegmenterOutput, matched: Matched, context: StepContext) -> None:
        """Store the selected queries whose last prediction has a target, in the order of images over all ranks."""
        assert student.masks is not None
        none = student.masks.class_logits.shape[2] - 1
        classes = context.ranks.gather(matched.classes).flatten()
        vectors = context.ranks.gather(student.features["selected"].detach().float()).flatten(0, 1)
        bank, there = self._bank(classes.device), classes != none
        bank.add(classes[there], vectors[there])
        self.state.update(bank.state())

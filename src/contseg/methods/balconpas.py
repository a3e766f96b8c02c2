"""BalConpas: Strike a Balance in Continual Panoptic Segmentation (Chen et al., ECCV 2024)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.losses.masks.balanced import balanced_class_loss, pseudo_matched, token_distillation
from contseg.methods.mask_pseudo_labels import PseudoRule
from contseg.methods.mask_relabelling import incomplete, leaking, pseudo_counts, with_leaked, with_pseudo_masks
from contseg.methods.mask_supervision import Matched, match, matched_count, mean_over_update
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import SegmenterOutput
from contseg.options import Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch


@dataclass(frozen=True)
class BalConpas(Method):
    """Distillation of the tokens of queries + masks of the teacher as targets + a class loss that is fair to exemplars.

    Tokens are compared after every block that queries pass, where a query's target is a pseudo label. An image in which a
    class of the step is not annotated, such as an exemplar of the memory, gets no pseudo labels, and its queries without a
    target do not count in the class loss (`balanced_class_loss`). The memory of the paper is `scenario.memory` with
    `choice: balanced`.

    With `scenario.variant: released` the first class of the next step is annotated too, as in its released code: as it has
    no output, a query learns its mask and that it is no object. An image that shows it gets no pseudo labels either.

    Args:
        tokens: weight of the distillation of tokens, 5. 0 omits it.
    """

    tokens: Weight = 5.0

    name = "balconpas"
    learns = ("masks",)
    first_step_is_plain = True
    needs_teacher = True
    taps = ("queries",)
    handles_leak = True

    def class_term(self, class_logits_BQC: Tensor, matched: Matched, batch: Batch, context: StepContext) -> Tensor:
        """`balanced_class_loss`, whose weights are those of the update."""
        old, queries = context.step.old_count, class_logits_BQC.shape[1]
        if old == 0:
            return super().class_term(class_logits_BQC, matched, batch, context)

        def unmatched(one: Batch) -> float:
            return len(one.labels) * queries - taken(one)

        def free(one: Batch) -> float:
            return unmatched(one.rows((~incomplete(one, old)).nonzero()[:, 0].tolist()))

        def taken(one: Batch) -> float:
            return matched_count(one, queries, self.handles_leak)

        like = precise(class_logits_BQC)
        first, second, third = (mean_over_update(context, batch, count, like) for count in (free, unmatched, taken))
        totals = (first, second, third)
        return balanced_class_loss(class_logits_BQC, matched.classes, incomplete(batch, old), totals=totals)

    @torch.no_grad()
    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Add the masks of the teacher before the annotated ones."""
        batch = with_leaked(batch)
        if teacher is None or teacher.masks is None:
            return batch
        spared = incomplete(batch, context.step.old_count) | leaking(batch)
        return with_pseudo_masks(batch, teacher.masks, PseudoRule(), first=True, spared_B=spared)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised terms + distillation of tokens."""
        matched = match(student, batch, context)
        terms = self.mask_terms(student, batch, context, matched)
        if teacher is None or not self.tokens:
            return terms
        counts = pseudo_counts(batch)
        images, queries = pseudo_matched(matched.matches, counts)
        tokens, old = precise(student.features["queries"]), precise(teacher.features["queries"])
        pairs = zip(tokens.unbind(dim=1), old.unbind(dim=1), strict=True)
        kept = torch.stack([token_distillation(new, before, images, queries) for new, before in pairs]).sum()
        number = mean_over_update(context, batch, lambda one: sum(pseudo_counts(one)), kept)
        return terms | {"tokens": self.tokens * kept * len(images) / number.clamp_min(1e-12)}

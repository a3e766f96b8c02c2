"""BalConpas: a class loss that does not punish exemplars for classes they do not annotate, and distillation of tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.masks.criterion import NO_OBJECT
from contseg.losses.masks.matching import Matches
from contseg.precision import precisely


@precisely
def balanced_class_loss(
    class_logits_BQC: Tensor,
    classes_BQ: Tensor,
    incomplete_B: Tensor,
    no_object: float = NO_OBJECT,
    totals: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Cross-entropy over all queries, where queries without a target count only in images whose annotation is complete.

    An unmatched query of an incomplete image, such as an exemplar of the memory, may show a class that is not annotated: its
    weight is 0, and the weight of the others is raised, so that the sum of weights is that of `class_loss`. Without an
    incomplete image it is `class_loss`.

    Args:
        classes_BQ: no-object, the last output, for queries without a target.
        incomplete_B: bool.
        totals: unmatched queries of complete images, all unmatched queries, and matched ones: means over the parts of an
            update; default: of this part.

    Example:
        >>> classes = torch.tensor([[0, 3], [3, 3]])
        >>> balanced_class_loss(torch.zeros(2, 2, 4), classes, torch.tensor([True, False]))
        tensor(1.3863)
    """
    unmatched = classes_BQ == class_logits_BQC.shape[-1] - 1
    free = unmatched & ~incomplete_B[:, None]
    count, every, matched = (free.sum(), unmatched.sum(), (~unmatched).sum()) if totals is None else totals
    raised = no_object * every / count.clamp_min(1)
    weights = torch.where(unmatched, raised * free, torch.ones_like(raised))
    nll = functional.cross_entropy(class_logits_BQC.transpose(1, 2), classes_BQ, reduction="none")
    return (weights * nll).sum() / (no_object * classes_BQ.numel() + (1 - no_object) * matched)


def pseudo_matched(matches: Matches, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Image and query of the pairs whose target is a pseudo label, (N,) each.

    Args:
        counts: pseudo labels of each image, which are the first of its targets.

    Example:
        >>> from contseg.losses.masks.matching import assign
        >>> images, queries = pseudo_matched(assign([torch.tensor([[0.0, 9.0], [9.0, 0.0]])]), [1])
        >>> images.tolist(), queries.tolist()
        ([0], [0])
    """
    first = torch.tensor(list(counts), device=matches.images.device)[matches.images]
    chosen = matches.targets < first
    return matches.images[chosen], matches.queries[chosen]


@precisely
def token_distillation(tokens_BQD: Tensor, old_BQD: Tensor, images_N: Tensor, queries_N: Tensor) -> Tensor:
    """Squared difference of the tokens of some queries to those of the old model, mean over them and over channels.

    0 without any such query, where the released code has the mean of nothing.

    Args:
        images_N, queries_N: as of `pseudo_matched`.

    Example:
        >>> token_distillation(torch.zeros(1, 2, 3), torch.full((1, 2, 3), 2.0), torch.tensor([0]), torch.tensor([1]))
        tensor(4.)
    """
    difference = tokens_BQD[images_N, queries_N] - old_BQD.detach()[images_N, queries_N]
    return difference.square().sum() / max(1, difference.numel())

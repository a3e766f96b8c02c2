"""Shrinkage, and the distance of background, chosen on held-out images of a step."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from contseg.digest import sha256
from contseg.methods.gaussian.readout import Prior, readout
from contseg.methods.gaussian.sums import GaussianSums
from contseg.ranks import ALONE, Ranks
from contseg.scenarios.step import Step

RHOS = (0.001, 0.01, 0.1, 1.0)
QUANTILES = (0.99, 0.5, 0.9, 0.999, 0.99999)
"""Of the distance beyond which a cell is background; the first is the default."""
Choice = tuple[float, float | None]
"""A rho, and a quantile if background is a distance."""


def held_out(name: str) -> bool:
    """Whether an image is among the fifth that is held out; depends on its name alone.

    Example:
        >>> sum(held_out(f"image{number}") for number in range(1000))
        172
    """
    return int(sha256(name)[:8], 16) % 5 == 0


def best_choice(
    cells: Iterable[tuple[Tensor, Tensor]],
    sums: GaussianSums,
    step: Step,
    choices: Sequence[Choice],
    prior: Prior = "equal",
    ranks: Ranks = ALONE,
) -> Choice:
    """The choice with the best mean IoU of the step's classes over labelled cells; the first if there are no such cells.

    Args:
        cells: phi and labels of held-out images, (N, M) and (N,); labels that are no output are not used.
        sums: of the other images and of earlier steps.
        choices: candidates.
        prior: see `readout`.
    """
    table, first = step.table, int(step.table.has_background)
    found = [readout(sums, table, rho=rho, prior=prior, quantile=quantile) for rho, quantile in choices]
    count = len(table)
    confusions = torch.zeros(len(found), count, count, dtype=torch.int64, device=sums.counts.device)
    for phi_NM, labels_N in cells:
        kept = (labels_N >= 0) & (labels_N < count)
        labels = labels_N.where(kept, 0)
        for place, one in enumerate(found):
            pairs = labels * count + one.scores(phi_NM).argmax(dim=1)
            confusions[place].view(-1).index_add_(0, pairs, kept.long())
    confusions = ranks.sum(confusions).double()
    new = slice(max(step.old_count, first) if step.new_count else first, None)
    both = confusions.diagonal(dim1=1, dim2=2)[:, new]
    either = confusions.sum(dim=1)[:, new] + confusions.sum(dim=2)[:, new] - both
    labelled = confusions.sum(dim=2)[:, new] > 0
    scores = (both / either.clamp(min=1) * labelled).sum(dim=1) / labelled.sum(dim=1).clamp(min=1)
    return choices[int(scores.argmax())]

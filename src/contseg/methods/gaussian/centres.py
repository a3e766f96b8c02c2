"""Several centres of background, from cells that no class claims."""

from collections.abc import Iterable

import torch
from torch import Tensor

from contseg.methods.gaussian.readout import Readout
from contseg.ranks import ALONE, Ranks

SAMPLE = 1500
ROUNDS = 30


def background_centres(
    cells: Iterable[tuple[Tensor, Tensor]], claimed: Readout, count: int, seed: int, ranks: Ranks = ALONE
) -> Tensor:
    """At most `count` centres, (C, M) float64, of cells that are labelled background and predicted as background.

    At most 1500 cells are drawn, uniformly over all ranks. The draw depends on the order of the images.

    Args:
        cells: phi and labels, (N, M) and (N,).
        claimed: the read-out whose classes claim cells.
        seed: of the draw and of the clustering.
    """
    generator = torch.Generator().manual_seed(seed * ranks.count + ranks.rank)
    kept = claimed.weight.new_zeros(SAMPLE, claimed.weight.shape[1])
    priorities = kept.new_full((SAMPLE,), -1.0)
    for phi_NM, labels_N in cells:
        drawn = torch.rand(len(labels_N), dtype=torch.float64, generator=generator).to(kept.device)
        free = (labels_N == 0) & (claimed.scores(phi_NM).argmax(dim=1) == 0)
        priorities, best = torch.cat([priorities, drawn.where(free, -1.0)]).topk(SAMPLE)
        kept = torch.cat([kept, phi_NM.to(kept)])[best]
    priorities, best = ranks.gather(priorities).topk(SAMPLE)
    return k_means(ranks.gather(kept)[best][priorities >= 0], count, seed)


def k_means(points_NM: Tensor, count: int, seed: int = 0) -> Tensor:
    """Centres of at most `count` clusters, (C, M), after 30 rounds from a start of k-means++.

    Example:
        >>> points = torch.tensor([[0.0], [0.2], [4.0], [4.2]])
        >>> k_means(points, 2).sort(dim=0).values.flatten().tolist()
        [0.10000000149011612, 4.099999904632568]
    """
    generator, count = torch.Generator().manual_seed(seed), min(count, len(points_NM))
    if not count:
        return points_NM
    chosen = [int(torch.randint(len(points_NM), (1,), generator=generator))]
    while len(chosen) < count:
        nearest = torch.cdist(points_NM, points_NM[chosen]).amin(dim=1).square().cpu() + 1e-30
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
    centres = points_NM[chosen]
    for _ in range(ROUNDS):
        numbers = torch.cdist(points_NM, centres).argmin(dim=1)
        members = torch.nn.functional.one_hot(numbers, count).to(points_NM)
        sizes = members.sum(dim=0)[:, None]
        centres = (members.T @ points_NM / sizes.clamp(min=1)).where(sizes > 0, centres)
    return centres

"""The losses of one prediction of classes and masks, given which query belongs to which target (Mask2Former, EoMT)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from contseg.losses.masks.costs import WEIGHTS, MaskSums, class_cost
from contseg.losses.masks.matching import Matches
from contseg.losses.masks.points import LayerPoints, compared, uncertain_points, values_at
from contseg.losses.masks.targets import MaskTargets
from contseg.precision import precisely

NO_OBJECT = 0.1
"""Weight of queries without a target in the class loss."""


@torch.no_grad()
def matching_costs(
    class_logits_BQC: Tensor, mask_logits_BQhw: Tensor, targets: Sequence[MaskTargets], points_BP2: Tensor
) -> list[Tensor]:
    """Costs of all queries for the targets of each image, (Q, T) each: 2 class + 5 mask + 5 dice.

    Args:
        points_BP2: where masks are compared, (x, y) in [0, 1].

    Example:
        >>> image = MaskTargets(torch.tensor([0, 1]), torch.tensor([[[True, False]], [[False, True]]]))
        >>> [cost] = matching_costs(torch.zeros(1, 5, 3), torch.zeros(1, 5, 4, 4), [image], torch.rand(1, 16, 2))
        >>> cost.shape
        torch.Size([5, 2])
    """
    found = []
    for logits, maps, one, points in zip(class_logits_BQC, mask_logits_BQhw, targets, points_BP2, strict=True):
        sums = mask_sums(maps, one, points)
        cost = WEIGHTS["class"] * class_cost(logits, one.classes) + WEIGHTS["mask"] * sums.cross_entropy()
        found.append(cost + WEIGHTS["dice"] * (1 - sums.dice()))
    return found


def mask_sums(maps_Qhw: Tensor, targets: MaskTargets, points_P2: Tensor, softmax: bool = False) -> MaskSums:
    """The sums over points of one image, from which the costs of masks follow.

    Args:
        softmax: see `MaskSums`.
    """
    sums = MaskSums(softmax)
    for values, truth in compared(maps_Qhw, targets.masks, points_P2):
        sums.add(values, truth)
    return sums


def class_targets(matches: Matches, targets: Sequence[MaskTargets], shape: tuple[int, int], none: int) -> Tensor:
    """The class of each query, (B, Q) int64.

    Args:
        shape: (B, Q).
        none: output of no-object, for queries without a target: the last one.

    Example:
        >>> from contseg.losses.masks.matching import assign
        >>> image = MaskTargets(torch.tensor([4]), torch.ones(1, 2, 2, dtype=torch.bool))
        >>> class_targets(assign([torch.tensor([[1.0], [0.0]])]), [image], (1, 2), none=9)
        tensor([[9, 4]])
    """
    classes = torch.cat([one.classes for one in targets])
    found = classes.new_full(shape, none)
    found[matches.images, matches.queries] = classes[matches.rows]
    return found


@precisely
def class_loss(class_logits_BQC: Tensor, classes_BQ: Tensor, no_object: float = NO_OBJECT) -> Tensor:
    """Cross-entropy over all queries, sum of w nll / sum of w: w is 1, or `no_object` where the class is the last one.

    Example:
        >>> class_loss(torch.zeros(1, 2, 4), torch.tensor([[3, 0]]))
        tensor(1.3863)
    """
    weights = class_logits_BQC.new_ones(class_logits_BQC.shape[2])
    weights[-1] = no_object
    return functional.cross_entropy(class_logits_BQC.transpose(1, 2), classes_BQ, weights)


@precisely
def mask_loss(logits_MP: Tensor, targets_MP: Tensor, number: Tensor | float) -> Tensor:
    """Binary cross-entropy, mean over points, sum over pairs / N; 0 without pairs.

    Args:
        number: N, the masks of the whole batch over all ranks / number of ranks.

    Example:
        >>> mask_loss(torch.zeros(2, 3), torch.ones(2, 3), 2)
        tensor(0.6931)
    """
    each = functional.softplus(logits_MP) - logits_MP * targets_MP
    return each.sum() / logits_MP.shape[1] / number


@precisely
def dice_loss(shares_MP: Tensor, targets_MP: Tensor, number: Tensor | float) -> Tensor:
    """1 - (2 sum s y + 1) / (sum s + sum y + 1), sum over pairs / N.

    Args:
        shares_MP: s in [0, 1], such as the sigmoid of logits.

    Example:
        >>> dice_loss(torch.ones(1, 4), torch.ones(1, 4), 1)
        tensor(0.)
    """
    ratio = (2 * (shares_MP * targets_MP).sum(dim=1) + 1) / (shares_MP.sum(dim=1) + targets_MP.sum(dim=1) + 1)
    return (1 - ratio).sum() / number


def target_values(targets: Sequence[MaskTargets], matches: Matches, points_MP2: Tensor) -> Tensor:
    """Values of the matched target masks at the points of each pair, (M, P)."""
    masks = torch.cat([one.masks for one in targets])[matches.rows]
    return values_at(masks[:, None], points_MP2)[:, 0]


def loss_points(mask_logits_Mhw: Tensor, points: LayerPoints) -> Tensor:
    """The points of the mask losses, (M, P, 2): three quarters are the candidates with the smallest absolute logit.

    Args:
        mask_logits_Mhw: of the matched queries.
    """
    return uncertain_points(mask_logits_Mhw, points.candidates, points.random)


def mask_losses(
    mask_logits_BQhw: Tensor,
    targets: Sequence[MaskTargets],
    matches: Matches,
    points: LayerPoints,
    number: Tensor | float,
) -> dict[str, Tensor]:
    """The terms `mask` and `dice` of the matched pairs, unweighted.

    Args:
        number: N, the masks of the whole batch over all ranks / number of ranks.

    Example:
        >>> from contseg.losses.masks.matching import assign
        >>> from contseg.losses.masks.points import draw_points
        >>> image = [MaskTargets(torch.tensor([0]), torch.ones(1, 8, 8, dtype=torch.bool))]
        >>> logits, points = torch.full((1, 3, 4, 4), 20.0), draw_points(torch.Generator().manual_seed(0), [1], 3, 16)
        >>> sorted(mask_losses(logits, image, assign([torch.zeros(3, 1)]), points, 1))
        ['dice', 'mask']
    """
    chosen = matches.of(mask_logits_BQhw)
    used = loss_points(chosen, points)
    logits = values_at(chosen[:, None], used)[:, 0]
    truth = target_values(targets, matches, used).to(logits)
    return {"mask": mask_loss(logits, truth, number), "dice": dice_loss(logits.sigmoid(), truth, number)}


def weighted(terms: dict[str, Tensor]) -> Tensor:
    """The sum of terms, each times its entry in `WEIGHTS`.

    Example:
        >>> weighted({"class": torch.tensor(1.0), "dice": torch.tensor(2.0)})
        tensor(12.)
    """
    return torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()

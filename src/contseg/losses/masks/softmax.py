"""CoMFormer's masks: a softmax over queries at every pixel, in place of a sigmoid per query."""

from collections.abc import Sequence

import torch
from torch import Tensor

from contseg.losses.masks.costs import harmonic_cost
from contseg.losses.masks.criterion import dice_loss, mask_sums, target_values
from contseg.losses.masks.matching import Matches
from contseg.losses.masks.points import LayerPoints, uncertain_points, values_at
from contseg.losses.masks.targets import MaskTargets
from contseg.precision import precise, precisely


@torch.no_grad()
def softmax_matching_costs(
    class_logits_BQC: Tensor, mask_logits_BQhw: Tensor, targets: Sequence[MaskTargets], points_BP2: Tensor
) -> list[Tensor]:
    """CoMFormer's costs of all queries for the targets of each image, (Q, T) each; see `harmonic_cost`.

    Args:
        points_BP2: where masks are compared, (x, y) in [0, 1]; there the softmax, not the logits, is interpolated.
    """
    each = zip(class_logits_BQC, precise(mask_logits_BQhw).softmax(dim=1), targets, points_BP2, strict=True)
    return [
        harmonic_cost(logits, one.classes, mask_sums(shares, one, points, softmax=True).dice())
        for logits, shares, one, points in each
    ]


def softmax_loss_points(mask_logits_BQhw: Tensor, matches: Matches, points: LayerPoints) -> Tensor:
    """The points of the losses, (M, P, 2): three quarters are the candidates whose share is nearest to 1/2."""
    shares = matches.of(precise(mask_logits_BQhw.detach()).softmax(dim=1))
    return uncertain_points(shares, points.candidates, points.random, lambda share: (2 * share - 1).abs())


@precisely
def softmax_mask_loss(log_shares_MP: Tensor, targets_MP: Tensor, number: Tensor | float) -> Tensor:
    """Minus the log of the share where the target is, mean over all points, sum over pairs / N: only positives count.

    Example:
        >>> softmax_mask_loss(torch.tensor([[-1.0, -3.0]]), torch.tensor([[1.0, 0.0]]), 1)
        tensor(0.5000)
    """
    return -(log_shares_MP * targets_MP).sum() / log_shares_MP.shape[1] / number


def softmax_mask_losses(
    mask_logits_BQhw: Tensor,
    targets: Sequence[MaskTargets],
    matches: Matches,
    points: LayerPoints,
    number: Tensor | float,
) -> dict[str, Tensor]:
    """The terms `mask` and `dice` of the matched pairs, unweighted; log-shares and shares are interpolated separately.

    Args:
        number: N, as of `mask_losses`.

    Example:
        >>> from contseg.losses.masks.matching import assign
        >>> from contseg.losses.masks.points import draw_points
        >>> image = [MaskTargets(torch.tensor([0]), torch.ones(1, 8, 8, dtype=torch.bool))]
        >>> points = draw_points(torch.Generator().manual_seed(0), [1], 3, 16)
        >>> sorted(softmax_mask_losses(torch.zeros(1, 3, 4, 4), image, assign([torch.zeros(3, 1)]), points, 1))
        ['dice', 'mask']
    """
    used = softmax_loss_points(mask_logits_BQhw, matches, points)
    logarithms = precise(mask_logits_BQhw).log_softmax(dim=1)
    maps = torch.stack([matches.of(logarithms), matches.of(logarithms.exp())], dim=1)
    log_shares, shares = values_at(maps, used).unbind(dim=1)
    truth = target_values(targets, matches, used).to(shares)
    return {"mask": softmax_mask_loss(log_shares, truth, number), "dice": dice_loss(shares, truth, number)}

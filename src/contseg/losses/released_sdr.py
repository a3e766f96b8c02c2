"""The formulas of the released SDR code, used instead of those of `losses.prototypes`.

The code selects the features of a class from (B, D, H, W) by a mask, in the order image, channel, pixel. It then reshapes
this list to D x n (correct for a single image only) or, in prototype matching, to n x D (never correct). So a value is
treated as a value of another channel.
"""

from typing import Literal

import torch
from torch import Tensor

from contseg.precision import precisely

Layout = Literal["channels first", "pixels first"]


def misread_channels(labels_BHW: Tensor, classes: int, depth: int, layout: Layout) -> Tensor:
    """The channel that each value is treated as: (B, D, H, W) int64.

    The value of the r-th pixel of a class in image b, channel d, is at D n_before + d n_b + r in the list of the class.

    Example:
        >>> misread_channels(torch.tensor([[[0, 0]], [[1, 0]]]), 2, 2, "channels first").flatten(2)
        tensor([[[0, 0],
                 [0, 1]],
        <BLANKLINE>
                [[0, 1],
                 [1, 1]]])
    """
    own_BN = labels_BHW.where(labels_BHW < classes, classes).flatten(1)
    members_BKN = own_BN[:, None] == torch.arange(classes + 1, device=own_BN.device)[:, None]
    here_BK = members_BKN.sum(dim=2)
    before_BN = (here_BK.cumsum(dim=0) - here_BK).gather(1, own_BN)
    rank_BN = members_BKN.cumsum(dim=2).gather(1, own_BN[:, None]).squeeze(1) - 1
    channels_D = torch.arange(depth, device=own_BN.device)[:, None]
    place_BDN = (depth * before_BN + rank_BN)[:, None] + channels_D * here_BK.gather(1, own_BN)[:, None]
    taken = place_BDN // here_BK.sum(dim=0)[own_BN][:, None] if layout == "channels first" else place_BDN % depth
    return taken.unflatten(2, labels_BHW.shape[1:])


@precisely
def misread_sums(
    features_BDHW: Tensor, labels_BHW: Tensor, classes: int, layout: Layout = "channels first"
) -> tuple[Tensor, Tensor]:
    """`class_sums` of features whose channels are misread: (K, D) and (K,).

    Example:
        >>> features = torch.arange(8.0).view(2, 2, 1, 2)
        >>> misread_sums(features, torch.tensor([[[0, 0]], [[1, 0]]]), 2)
        (tensor([[ 3., 15.],
                [ 4.,  6.]]), tensor([3, 1]))
    """
    depth = features_BDHW.shape[1]
    own_BHW = labels_BHW.where(labels_BHW < classes, classes)
    index = own_BHW[:, None] * depth + misread_channels(labels_BHW, classes, depth, layout)
    sums = features_BDHW.new_zeros((classes + 1) * depth).index_add(0, index.flatten(), features_BDHW.flatten())
    counts = own_BHW.new_zeros(classes + 1).index_add(0, own_BHW.flatten(), torch.ones_like(own_BHW).flatten())
    return sums.view(classes + 1, depth)[:classes], counts[:classes]


@precisely
def misread_errors(
    features_BDHW: Tensor, labels_BHW: Tensor, prototypes_KD: Tensor, layout: Layout = "channels first"
) -> Tensor:
    """`class_errors` of features whose channels are misread: (K,)."""
    classes, depth = prototypes_KD.shape
    own_BHW = labels_BHW.where(labels_BHW < classes, classes)
    taken = misread_channels(labels_BHW, classes, depth, layout)
    others = torch.cat([prototypes_KD, prototypes_KD[:1]])  # ignored labels need some row
    errors_BHW = (features_BDHW - others[own_BHW[:, None], taken]).square().mean(dim=1)
    return errors_BHW.new_zeros(classes + 1).index_add(0, own_BHW.flatten(), errors_BHW.flatten())[:classes]


def without_lowest(present_K: Tensor) -> Tensor:
    """All present classes except the lowest. This is meant to exclude background, which may not be present.

    Example:
        >>> without_lowest(torch.tensor([False, True, True]))
        tensor([False, False,  True])
    """
    return present_K & (present_K.cumsum(dim=0) > 1)


def released_attraction(errors_K: Tensor, counts_K: Tensor, present_K: Tensor) -> Tensor:
    """`attraction` whose running sum is divided by the number of classes K' at every class: class i has the weight
    K'^-(K' - i + 1), so that in effect only the highest class is attracted.

    Example:
        >>> released_attraction(torch.tensor([2.0, 9.0]), torch.tensor([4, 3]), torch.tensor([True, True]))
        tensor(1.6250)
    """
    means_K = errors_K / counts_K.clamp(min=1)
    count = present_K.sum().clamp(min=1).to(means_K.dtype)
    weights_K = count ** (present_K.cumsum(dim=0) - 1 - count)
    return (weights_K * means_K).where(present_K, 0.0).sum()


@precisely
def released_repulsion(means_KD: Tensor, present_K: Tensor) -> Tensor:
    """`repulsion` that ignores only pairs at a distance of exactly 0, so it is huge for means that are equal up to rounding.

    Example:
        >>> means = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [9.0, 9.0]])
        >>> released_repulsion(means, torch.tensor([True, True, True, False]))
        tensor(0.2000)
    """
    distances_KK = torch.cdist(means_KD, means_KD, compute_mode="donot_use_mm_for_euclid_dist")
    pairs_KK = present_K[:, None] & present_K & ~distances_KK.detach().reciprocal().isinf()
    pushed_KK = distances_KK.where(pairs_KK, torch.inf).reciprocal()
    return pushed_KK.sum() / pairs_KK.sum().clamp(min=1)

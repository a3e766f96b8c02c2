"""Sparsity of the channels of a pixel (SDR, CVPR 2021), for features that are rarely negative."""

from collections.abc import Callable

import torch
from torch import Tensor

from contseg.precision import precisely

LABELS = 256


@precisely
def class_maxima(features_BDHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """The maximum feature over channels and pixels of each label value, including 255: (256,), -inf without pixels.

    Example:
        >>> class_maxima(torch.tensor([[[[1.0, 3.0, 2.0]]]]), torch.tensor([[[0, 1, 1]]]))[:3]
        tensor([1., 3., -inf])
    """
    nothing = features_BDHW.new_full((LABELS,), -torch.inf)
    return nothing.scatter_reduce(0, labels_BHW.flatten(), features_BDHW.amax(dim=1).flatten(), "amax")


@precisely
def sparsity(
    features_BDHW: Tensor,
    maxima: Tensor,
    strength: Callable[[Tensor], Tensor] = torch.exp,
    epsilon: float = 1e-15,
    guarded: bool = False,
) -> Tensor:
    """Mean over pixels of sum_d s(g_d) / sum_d g_d, with g = f / maximum: small if few channels are strong.

    Gradients flow through the maxima. If the sum over all g is not positive, the value is 0.

    Args:
        maxima: divisors that broadcast to the features: the maxima of the pixel's class in SDR, or
            `features.amax(dim=1, keepdim=True)`, or `features.amax()`.
        strength: s.
        epsilon: added to both denominators.
        guarded: whether pixels whose sum of g or whose maximum is not positive count as 0. Without it, as released, the
            ratio of a negative sum is negative.

    Example:
        >>> spread, sharp = torch.tensor([[1.0, 1.0]]).view(1, 2, 1, 1), torch.tensor([[1.0, 0.0]]).view(1, 2, 1, 1)
        >>> sparsity(spread, spread.amax(), torch.square), sparsity(sharp, sharp.amax(), lambda g: g**3)
        (tensor(1.), tensor(1.))
        >>> mixed = torch.tensor([[3.0, 1.0], [1.0, -3.0]]).view(1, 2, 2, 1)  # one pixel adds up to 4, the other to -2
        >>> [sparsity(mixed, torch.ones(1), torch.abs, guarded=guarded) for guarded in (False, True)]
        [tensor(-0.5000), tensor(0.5000)]
    """
    measured = features_BDHW / ((maxima.where(maxima > 0, 1.0) if guarded else maxima) + epsilon)
    if guarded:
        total_BHW = measured.sum(dim=1)
        positive = total_BHW > 0
        ratio_BHW = strength(measured).sum(dim=1) / (total_BHW.where(positive, 1.0) + epsilon)
        return ratio_BHW.where(positive, 0.0).mean()
    nothing = measured.detach().sum() <= 0
    measured = measured.where(~nothing, 1.0)  # so that unused ratios have no (infinite) gradient
    ratio_BHW = strength(measured).sum(dim=1) / (measured.sum(dim=1) + epsilon)
    return ratio_BHW.mean().where(~nothing, 0.0)


@precisely
def channel_entropy(features_BDHW: Tensor, epsilon: float = 1e-10) -> Tensor:
    """Mean over pixels of -sum_d g_d log g_d, with g = f / |f|_1 over channels: an alternative measure of sparsity.

    Example:
        >>> channel_entropy(torch.ones(1, 2, 1, 1))
        tensor(0.6931)
    """
    parts = torch.nn.functional.normalize(features_BDHW, p=1.0, dim=1)
    return -(parts * (parts + epsilon).log()).sum(dim=1).mean()

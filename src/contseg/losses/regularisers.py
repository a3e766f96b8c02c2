"""Importance-weighted penalties on the change of weights.

Lists have one tensor per parameter, and no function waits for the device. As in the code base of MiB, the importances of a
tensor are rescaled to [0, 1] before they are used.
"""

import torch
from torch import Tensor

Tensors = list[Tensor]


def normalise(importance: Tensor) -> Tensor:
    """(v - min) / (max - min + 1e-8): the importances of a tensor, rescaled to [0, 1].

    Example:
        >>> normalise(torch.tensor([2.0, 4.0, 3.0]))
        tensor([0.0000, 1.0000, 0.5000])
    """
    least, most = torch.aminmax(importance)
    return (importance - least) / (most - least + 1e-8)


def penalty(parameters: Tensors, anchors: Tensors, strengths: Tensors) -> Tensor:
    """sum w (p - p°)^2 over all elements of all tensors: a scalar.

    Example:
        >>> penalty([torch.tensor([1.0, 3.0])], [torch.tensor([0.0, 1.0])], [torch.tensor([0.5, 1.0])])
        tensor(4.5000)
    """
    triples = zip(parameters, anchors, strengths, strict=True)
    return torch.stack([(weight * (now - then).square()).sum() for now, then, weight in triples]).sum()


def add_penalty_gradients(
    gradients: Tensors, parameters: Tensors, anchors: Tensors, strengths: Tensors, weight: float = 1.0
) -> None:
    """Add weight * 2 w (p - p°), the gradient of weight * `penalty`, to gradients, in place.

    Example:
        >>> gradients = [torch.zeros(2)]
        >>> now, then = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
        >>> add_penalty_gradients(gradients, [now], [then], [torch.tensor([0.5, 1.0])])
        >>> gradients
        [tensor([1., 4.])]
    """
    torch._foreach_addcmul_(gradients, torch._foreach_sub(parameters, anchors), strengths, value=2 * weight)


def running_fisher(fishers: Tensors, gradients: Tensors, alpha: float = 0.9) -> Tensors:
    """F <- alpha g^2 + (1 - alpha) F: running mean of the diagonal Fisher information, from gradients of whole batches.

    Example:
        >>> running_fisher([torch.ones(2)], [torch.tensor([0.0, 2.0])])
        [tensor([0.1000, 3.7000])]
    """
    return list(torch._foreach_lerp(fishers, torch._foreach_mul(gradients, gradients), alpha))


def path_integral(gradients: Tensors, before: Tensors, parameters: Tensors) -> Tensors:
    """g (p_before - p): the decrease of the loss by the change since `before`, to first order (PI).

    Example:
        >>> path_integral([torch.tensor([-2.0])], [torch.tensor([1.0])], [torch.tensor([1.5])])
        [tensor([1.])]
    """
    return list(torch._foreach_mul(gradients, torch._foreach_sub(before, parameters)))


def path_per_distance(path: Tensor, parameter: Tensor, start: Tensor) -> Tensor:
    """max(0, path / ((p - p_start)^2 + 1e-20)): the importances from the path of a step (PI).

    Example:
        >>> path_per_distance(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 2.0]), torch.zeros(2))
        tensor([0.2500, 0.0000])
    """
    return (path / ((parameter - start).square() + 1e-20)).clamp(min=0)


def path_per_divergence(gradients: Tensors, before: Tensors, parameters: Tensors, fishers: Tensors) -> Tensors:
    """g d / (F d^2 / 2 + 1e-8) with d = p_before - p: decrease of the loss per change of the predictions (RW).

    Example:
        >>> path_per_divergence([torch.tensor([2.0])], [torch.tensor([1.0])], [torch.tensor([0.0])], [torch.tensor([4.0])])
        [tensor([1.])]
    """
    movements = torch._foreach_sub(before, parameters)
    divergences = torch._foreach_mul(torch._foreach_mul(movements, movements), fishers)
    torch._foreach_mul_(divergences, 0.5)
    torch._foreach_add_(divergences, 1e-8)
    return list(torch._foreach_div(torch._foreach_mul(gradients, movements), divergences))

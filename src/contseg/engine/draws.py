"""Random draws inside a network (dropout, stochastic depth) that do not depend on ranks and passes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

DROPOUTS = frozenset({
    functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d,
    functional.alpha_dropout, functional.feature_alpha_dropout,
})  # fmt: skip
LIKE = frozenset({torch.bernoulli, torch.rand_like, torch.randn_like})
"""Functions that draw a tensor like their first argument."""
IN_PLACE = frozenset({Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_})
"""Functions that draw into their first argument."""
OF_SIZES = frozenset({torch.rand, torch.randn})
"""Functions that draw a tensor of given sizes."""


class DrawsOfUpdate(TorchFunctionMode):
    """Inside the block, a network draws for all samples of an update, and uses the draws of the samples that it gets.

    So W ranks with A passes each draw what one process draws in one pass. A draw belongs to the samples if its first
    dimension is a multiple of their number, such as that of windows; other draws are those of one process.

    Args:
        samples: number of samples in this forward pass.
        part: index of this forward pass among those of the update, over all ranks.
        parts: their number.

    Example:
        >>> ones, halves = torch.ones(4, 2), []
        >>> for part in (0, 1):
        ...     _ = torch.manual_seed(0)
        ...     with DrawsOfUpdate(2, part, 2):
        ...         halves.append(functional.dropout(ones[:2]))
        >>> _ = torch.manual_seed(0)
        >>> torch.equal(torch.cat(halves), functional.dropout(ones))
        True
    """

    def __init__(self, samples: int, part: int, parts: int):
        super().__init__()
        self._samples, self._part, self._parts = samples, part, parts

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch."""
        kwargs = kwargs or {}
        if function in OF_SIZES and args:
            sizes = args if isinstance(args[0], int) else args[0]
            if self._has_samples(sizes, kwargs):
                return self._own(function((sizes[0] * self._parts, *sizes[1:]), **kwargs))
        elif function in LIKE | IN_PLACE or (function in DROPOUTS and _drops(*args, **kwargs)):
            rows, *others = args
            if self._has_samples(rows.shape, kwargs) and not any(isinstance(other, Tensor) for other in others):
                drawn = self._own(function(self._update(rows), *others, **kwargs))
                return rows.copy_(drawn) if function in IN_PLACE else drawn
        return function(*args, **kwargs)

    def _has_samples(self, sizes: Any, kwargs: dict[str, Any]) -> bool:
        return len(sizes) > 0 and sizes[0] % self._samples == 0 and kwargs.get("generator") is None

    def _update(self, rows: Tensor) -> Tensor:
        """These rows among zeros for those of the other parts."""
        every = [torch.zeros_like(rows)] * self._parts
        every[self._part] = rows
        return torch.cat(every)

    def _own(self, drawn: Tensor) -> Tensor:
        return drawn.chunk(self._parts)[self._part]


def _drops(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    """Whether a dropout draws; the arguments are PyTorch's."""
    return training and p > 0

"""Checks of devices and network before a run begins."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from contseg.engine.loggers.loggers import require_loggers
from contseg.engine.options import TrainingOptions
from contseg.engine.ranks import require_devices
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter


def require_startable(training: TrainingOptions, network: NetworkOptions, classes: int) -> None:
    """Raise ContsegError unless the devices and loggers exist, the batch divides over the devices, and the network can
    be built.

    Args:
        classes: number of classes of step 0.

    Example:
        >>> require_startable(TrainingOptions(batch=6, devices=4, accelerator="cpu"), NetworkOptions(), 3)
        Traceback (most recent call last):
        contseg.errors.ContsegError: training.batch: 6 images do not divide over 4 ranks; choose a multiple
    """
    require_devices(training)
    require_loggers(training.loggers)
    with torch.device("meta"), _WithoutDraws():  # shapes only: no memory, no random numbers
        Segmenter(network, first_widths(network, classes))


class _WithoutDraws(TorchFunctionMode):
    """Leaves out the draws of initial weights: for tensors without memory, PyTorch imports its compiler to draw none."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The tensor that would be filled, or the result of any other function."""
        if getattr(function, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))

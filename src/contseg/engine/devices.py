"""Where a run computes, and at which precision, once the machine is known."""

import torch

from contseg.engine.options import TrainingOptions


def accelerator_of(options: TrainingOptions) -> str:
    """`cpu` or `cuda`; `auto` is a GPU where there is one.

    Example:
        >>> accelerator_of(TrainingOptions(accelerator="cpu"))
        'cpu'
    """
    if options.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.accelerator


def precision_of(options: TrainingOptions) -> str:
    """The precision that is computed with: `amp` is `16-mixed` on a GPU and `32` on a CPU.

    Example:
        >>> precision_of(TrainingOptions(accelerator="cpu", precision="amp"))
        '32'
    """
    if options.precision == "amp":
        return "16-mixed" if accelerator_of(options) == "cuda" else "32"
    return options.precision

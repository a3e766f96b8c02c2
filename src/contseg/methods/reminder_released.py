"""REMINDER as its released code computes it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from contseg.losses.similarity import upsampled_sums
from contseg.methods.method import StepContext
from contseg.methods.plop_released import PLOPReleased
from contseg.methods.reminder import REMINDER, means


@dataclass(frozen=True)
class REMINDERReleased(REMINDER, PLOPReleased):
    """What the released code computes differently.

    * Pseudo-labels and regions of local POD as in the released code of PLOP.
    * A stored feature is the mean over batches of the mean in each batch that shows the class, so that a pixel in a batch
      with few pixels of its class counts more.

    In their code each process stores the features of its own images, and the last one to write wins; here a batch is that of
    all processes. Without a pixel of a new class in a batch, their loss is not a number; here the term is 0.
    """

    variant = "released"
    first_step_is_plain = True

    def mean_features(self, context: StepContext, first: int, count: int) -> Tensor:
        """Mean over batches of the mean feature of each new class, (K, D)."""
        total: Any = 0.0
        batches: Any = 0
        for batch, output in context.look(("head",)):
            sums, pixels = upsampled_sums(output.features["head"], batch.labels, first, count)
            sums, pixels = context.ranks.sum(sums), context.ranks.sum(pixels)
            total, batches = total + means(sums.double(), pixels), batches + (pixels > 0)
        return means(total, batches)

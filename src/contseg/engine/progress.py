"""The finished part of an epoch, so that it can be resumed."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from contseg.ranks import Ranks


@dataclass
class Progress:
    """The finished part of an epoch.

    Attributes:
        epoch: its number, 0-based.
        updates: finished so far.
        sums: the sum of each term over the passes of this rank.
        pseudo: `PseudoLabelCount.counts` of this rank, or None without relabelling.
        seconds: spent on the epoch by interrupted attempts.

    Example:
        >>> begun = Progress(3, 7, {"cross_entropy": torch.tensor(1.5)})
        >>> Progress.of(3, begun.saved(Ranks()), Ranks(), torch.device("cpu")) == begun
        True
    """

    epoch: int
    updates: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    pseudo: Tensor | None = None
    seconds: float = 0.0

    def saved(self, ranks: Ranks) -> dict[str, Any]:
        """Tensors and plain types for `StepState.within`, with the sums of every rank. Call it on all ranks."""
        return {
            "updates": self.updates,
            "sums": {name: ranks.gather(value[None]).cpu() for name, value in self.sums.items()},
            "pseudo": None if self.pseudo is None else ranks.sum(self.pseudo).cpu(),
            "seconds": self.seconds,
        }

    @classmethod
    def of(cls, epoch: int, saved: dict[str, Any] | None, ranks: Ranks, device: torch.device) -> "Progress":
        """Restore what `saved` returned, for this rank. If the number of ranks changed, rank 0 gets all sums."""
        if saved is None:
            return cls(epoch)
        sums = {name: values.to(device) for name, values in saved["sums"].items()}
        if all(len(values) == ranks.count for values in sums.values()):
            sums = {name: values[ranks.rank] for name, values in sums.items()}
        else:  # sums are averaged over ranks
            share = ranks.count if ranks.rank == 0 else 0
            sums = {name: share * values.mean(dim=0) for name, values in sums.items()}
        pseudo = saved["pseudo"]
        if pseudo is not None:
            pseudo = pseudo.to(device) * int(ranks.rank == 0)
        return cls(epoch, saved["updates"], sums, pseudo, saved["seconds"])

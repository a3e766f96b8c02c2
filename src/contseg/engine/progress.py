"""Where an epoch is: what a resume in the middle of it continues from."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from contseg.ranks import Ranks


@dataclass
class Progress:
    """The part of an epoch that is done.

    Attributes:
        epoch: which.
        updates: that are done.
        sums: of each term over the passes of this rank.
        pseudo: pixels that got each label, of this rank; None where nothing is relabelled.
        seconds: spent on the epoch by attempts that were interrupted.

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
        """As it is saved, with the sums of every rank; to be called on all ranks."""
        return {
            "updates": self.updates,
            "sums": {name: ranks.gather(value[None]).cpu() for name, value in self.sums.items()},
            "pseudo": None if self.pseudo is None else ranks.sum(self.pseudo).cpu(),
            "seconds": self.seconds,
        }

    @classmethod
    def of(cls, epoch: int, saved: dict[str, Any] | None, ranks: Ranks, device: torch.device) -> "Progress":
        """What `saved` gave, for this rank; rank 0 has everything where there were more or fewer ranks before."""
        if saved is None:
            return cls(epoch)
        sums = {name: values.to(device) for name, values in saved["sums"].items()}
        if all(len(values) == ranks.count for values in sums.values()):
            sums = {name: values[ranks.rank] for name, values in sums.items()}
        else:  # they are averaged over ranks
            share = ranks.count if ranks.rank == 0 else 0
            sums = {name: share * values.mean(dim=0) for name, values in sums.items()}
        pseudo = saved["pseudo"]
        if pseudo is not None:
            pseudo = pseudo.to(device) * int(ranks.rank == 0)
        return cls(epoch, saved["updates"], sums, pseudo, saved["seconds"])

"""SimCIS' memory of queries: selected features of each class, replayed as additional queries of the class loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contseg.ranks import Ranks

CAPACITY = 80
"""Features that are kept of a class."""


@dataclass
class VirtualQueries:
    """A queue of features per class; the newest replace the oldest.

    Args:
        vectors: (K, capacity, D).
        filled: (K,) int64, features of each class.
        position: (K,) int64, where the next one is written.

    Example:
        >>> bank = VirtualQueries.empty(classes=2, channels=1, capacity=2)
        >>> bank.add(torch.tensor([0, 0, 0]), torch.tensor([[1.0], [2.0], [3.0]]))
        >>> bank.filled.tolist(), bank.vectors[0, :, 0].tolist()
        ([2, 0], [3.0, 2.0])
    """

    vectors: Tensor
    filled: Tensor
    position: Tensor

    @classmethod
    def empty(cls, classes: int, channels: int, capacity: int = CAPACITY) -> "VirtualQueries":
        """Queues without features."""
        return cls(torch.zeros(classes, capacity, channels), *torch.zeros(2, classes, dtype=torch.int64))

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "VirtualQueries":
        """The queues of `state`, on their device."""
        return cls(state["virtual_vectors"], state["virtual_filled"], state["virtual_position"])

    def state(self) -> dict[str, Tensor]:
        """The tensors for the `state` of a method."""
        return {"virtual_vectors": self.vectors, "virtual_filled": self.filled, "virtual_position": self.position}

    def grow(self, classes: int) -> None:
        """Add queues, so that there are `classes` of them."""
        more = VirtualQueries.empty(classes - len(self.vectors), self.vectors.shape[2], self.vectors.shape[1])
        self.vectors = torch.cat([self.vectors, more.vectors.to(self.vectors)])
        self.filled, self.position = (
            torch.cat([one, one.new_zeros(len(more.filled))]) for one in (self.filled, self.position)
        )

    @torch.no_grad()
    def add(self, classes_N: Tensor, vectors_ND: Tensor) -> None:
        """Append features to the queues of their classes, in order."""
        capacity = self.vectors.shape[1]
        for one in classes_N.unique().tolist():
            new = vectors_ND.detach()[classes_N == one].to(self.vectors)
            places = (self.position[one] + torch.arange(len(new), device=new.device)) % capacity
            self.vectors[one, places[-capacity:]] = new[-capacity:]
            self.position[one] = (self.position[one] + len(new)) % capacity
            self.filled[one] = (self.filled[one] + len(new)).clamp_max(capacity)

    def draw(self, weights_K: Tensor, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Classes (B, V), drawn with replacement, and a stored feature of each, (B, V, D).

        A class without features is never drawn; the released code fails there.

        Args:
            weights_K: of the classes, see `virtual_weights`; fewer than there are queues leave out the last ones.
            shape: (B, V).
            generator: on CPU.

        Example:
            >>> bank = VirtualQueries.empty(classes=2, channels=3)
            >>> bank.add(torch.tensor([1]), torch.ones(1, 3))
            >>> classes, vectors = bank.draw(torch.ones(2), (2, 1), torch.Generator().manual_seed(0))
            >>> classes.tolist(), vectors.shape
            ([[1], [1]], torch.Size([2, 1, 3]))
        """
        count, device = shape[0] * shape[1], self.vectors.device
        filled = self.filled[: len(weights_K)].cpu()
        weights = weights_K.cpu().double() * (filled > 0)
        if count == 0 or not bool(weights.sum() > 0):
            empty = torch.zeros(shape[0], 0, dtype=torch.int64, device=device)
            return empty, self.vectors.new_zeros(shape[0], 0, self.vectors.shape[2])
        classes = torch.multinomial(weights, count, replacement=True, generator=generator)
        places = (torch.rand(count, generator=generator, dtype=torch.float64) * filled[classes]).long()
        vectors = self.vectors[classes.to(device), places.to(device)]
        return classes.view(shape).to(device), vectors.view(*shape, -1)

    def gathered(self, ranks: Ranks) -> "VirtualQueries":
        """The features of all ranks in one queue per class; each rank keeps its share of the capacity while it learns."""
        if ranks.count == 1:
            return self
        vectors, filled = ranks.gather(self.vectors[None]), ranks.gather(self.filled[None])
        whole = VirtualQueries.empty(len(self.filled), vectors.shape[3], vectors.shape[2] * ranks.count)
        whole.vectors = whole.vectors.to(self.vectors)
        whole.filled, whole.position = whole.filled.to(self.filled), whole.position.to(self.filled)
        for rank in range(ranks.count):
            for one, count in enumerate(filled[rank].tolist()):
                if count:
                    whole.add(torch.full((count,), one, device=vectors.device), vectors[rank, one, :count])
        return whole


def virtual_weights(counts_K: Tensor, power: float = 0.5) -> Tensor:
    """How often each old class is drawn: (sum of (n + 1) / (n_c + 1)) ** power, float32.

    Args:
        counts_K: n, pseudo labels of each old class in the images of the step.
        power: 0.5; 0.25 in SimCIS' 100-50.

    Example:
        >>> virtual_weights(torch.tensor([0, 3, 99]))
        tensor([10.2470,  5.1235,  1.0247])
    """
    more = counts_K.float() + 1
    return (more.sum() / more) ** power

"""Sums of a ridge regression from features to classes, and its solution."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.methods.gaussian.random_features import RandomFeatures
from contseg.ranks import Ranks

BLOCK = 1024
"""Columns of a Gram matrix that are computed at once; those above the diagonal block are mirrored."""


@dataclass(frozen=True, eq=False)
class RidgeSums:
    """Sums over labelled cells, in float64: A = sum phi phi^T and B = sum phi Y, with one-hot targets Y.

    Except for rounding they depend on no order of images, batches, ranks or steps. Column c of B is the sum of phi over the
    cells of class c, so B also has the totals of classes. A cell of any class is a negative of every other one, also of
    those that are added later.

    Args:
        features: the map phi, which is the same in all sums that are added.
        classes: names of K classes, in output order.
        counts: cells of each class, (K,).
        totals: B^T, (K, M).
        grams: A, (1, M, M); with `balanced` that of every class, (K, M, M). Only their lower triangles are computed; see
            `symmetric`.
        starts: added to B^T in the solution (K, M): (A_before + gamma I) w0 for a column that starts at w0, see `grown`.
        balanced: whether every class has the same weight in the solution, whatever the number of its cells.

    Example:
        >>> features = RandomFeatures.drawn("head", 4, expansion=6)
        >>> sums = RidgeSums.empty(features).grown(("background", "cat"))
        >>> sums.add(torch.rand(10, 4), torch.tensor([0] * 6 + [1] * 3 + [255]))
        >>> sums.counts.tolist(), sums.weight(gamma=1.0).shape
        ([6.0, 3.0], torch.Size([2, 6]))
    """

    features: RandomFeatures
    classes: tuple[str, ...]
    counts: Tensor
    totals: Tensor
    grams: Tensor
    starts: Tensor
    balanced: bool = False

    @classmethod
    def empty(cls, features: RandomFeatures, balanced: bool = False) -> "RidgeSums":
        """Sums over nothing, without classes."""
        width, zeros = features.width, features.mean.new_zeros
        none = zeros(0, width)
        return cls(features, (), zeros(0), none, zeros(0 if balanced else 1, width, width), none, balanced)

    def grown(self, classes: Sequence[str], start: Tensor | None = None, gamma: float = 0.0) -> "RidgeSums":
        """The same sums with further classes, of which nothing has been seen.

        Args:
            classes: names of the further classes.
            start: w0, (new classes, M): the columns that an iterative solution would start with. Their share never fades:
                W = (A + gamma I)^-1 (B + (A_before + gamma I) w0). Default: 0, as if they had had target 0 in all cells.
            gamma: of the solution; needed with `start`.

        Raises:
            ContsegError: a start in balanced sums, which have none.
        """
        if start is not None and self.balanced:
            raise ContsegError("sums of CFSSeg: columns of class-balanced sums start at 0; leave the start out")
        count = len(classes)
        starts = self.totals.new_zeros(count, self.features.width)
        if start is not None:
            start = start.to(starts)
            starts = start @ symmetric(self.grams[0]) + gamma * start
        return replace(
            self,
            classes=(*self.classes, *classes),
            counts=_with_zeros(self.counts, count),
            totals=_with_zeros(self.totals, count),
            grams=_with_zeros(self.grams, count) if self.balanced else self.grams,
            starts=torch.cat([self.starts, starts]),
        )

    def add(self, g_ND: Tensor, labels_N: Tensor) -> None:
        """Add cells, in place. The device waits once.

        Args:
            g_ND: the network's map.
            labels_N: positions in `classes`; others, such as 255, are not used.
        """
        count = len(self.classes)
        labels_N = labels_N.where((labels_N >= 0) & (labels_N < count), count)
        order, sizes = labels_N.argsort(stable=True), torch.bincount(labels_N, minlength=count + 1).tolist()
        used = order[: sum(sizes[:count])]
        for part in used.split(max(1, self.features.cells)):
            labels = labels_N[part]
            phi_NM = self.features(g_ND[part].double())
            targets_NK = torch.nn.functional.one_hot(labels, count).to(phi_NM)
            self.totals.addmm_(targets_NK.T, phi_NM)
            self.counts.add_(targets_NK.sum(dim=0))
            if not self.balanced:
                _add_gram(self.grams[0], phi_NM)
                continue
            own, numbers = torch.unique_consecutive(labels, return_counts=True)
            for number, phi in zip(own.tolist(), phi_NM.split(numbers.tolist()), strict=True):
                _add_gram(self.grams[number], phi)

    def over_ranks(self, ranks: Ranks) -> "RidgeSums":
        """The sums of all ranks, of which only one may have what was summed before, see `share`."""
        if ranks.count == 1:
            return self
        counts, totals, grams = (ranks.sum(value) for value in (self.counts, self.totals, self.grams))
        return replace(self, counts=counts, totals=totals, grams=grams)

    def share(self, ranks: Ranks) -> "RidgeSums":
        """These sums on the first rank, and nothing on the others; `starts`, which no cell changes, on all."""
        if ranks.rank == 0:
            return self
        counts, totals, grams = (torch.zeros_like(value) for value in (self.counts, self.totals, self.grams))
        return replace(self, counts=counts, totals=totals, grams=grams)

    def __add__(self, other: "RidgeSums") -> "RidgeSums":
        """Both together; classes of `other` that these sums lack come last.

        Raises:
            ContsegError: the features differ, or only one is balanced.
        """
        if not self.features.same_as(other.features) or self.balanced != other.balanced:
            raise ContsegError(
                "sums of CFSSeg: their features differ (tap, expansion, draw or seed), or only one is class-balanced; only"
                " sums over the same frozen network can be added"
            )
        both = self.grown([name for name in other.classes if name not in self.classes])
        places = torch.tensor([both.classes.index(name) for name in other.classes], dtype=torch.long)
        places = places.to(self.counts.device)
        grams = both.grams.index_add(0, places, other.grams) if self.balanced else both.grams + other.grams
        return replace(
            both,
            counts=both.counts.index_add(0, places, other.counts),
            totals=both.totals.index_add(0, places, other.totals),
            starts=both.starts.index_add(0, places, other.starts),
            grams=grams,
        )

    def weight(self, gamma: float) -> Tensor:
        """The solution, (K, M): W = (A + gamma I)^-1 (B + starts), transposed.

        With `balanced`, A is the sum of the classes' A_c / n_c, and column c of B is divided by n_c. A class without cells
        has the column 0.

        Raises:
            ContsegError: gamma is not above 0.
        """
        if gamma <= 0:
            raise ContsegError(f"gamma: must be above 0 (got {gamma:g})")
        targets = self.totals + self.starts
        if self.balanced:
            shares = (self.counts > 0) / self.counts.clamp(min=1)
            matrix = self.totals.new_zeros(self.features.width, self.features.width)
            for share, gram in zip(shares, self.grams, strict=True):
                matrix.add_(gram * share)
            targets = targets * shares[:, None]
        else:
            matrix = self.grams[0].clone()
        matrix.diagonal().add_(gamma)
        return torch.cholesky_solve(targets.T, torch.linalg.cholesky(matrix)).T  # reads the lower triangle

    def to(self, device: torch.device | str) -> "RidgeSums":
        """The same sums on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("counts", "totals", "grams", "starts")}
        return replace(self, features=self.features.to(device), **moved)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which `from_state` makes the same sums. Of a Gram matrix, one triangle is kept."""
        described = {
            "classes": self.classes,
            "tap": self.features.tap,
            "channels": len(self.features.mean),
            "expansion": self.features.expansion,
            "seed": self.features.seed,
            "draw": self.features.draw,
            "balanced": self.balanced,
        }
        packed = [_triangle(gram)[None] for gram in self.grams.cpu()]
        state = {
            "ridge": torch.tensor(list(json.dumps(described).encode()), dtype=torch.uint8),
            "counts": self.counts,
            "totals": self.totals,
            "starts": self.starts,
            "grams": torch.cat(packed) if len(packed) > 1 else packed[0] if packed else self.counts.new_zeros(0, 0),
        }
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "RidgeSums":
        """The sums of a `state_dict`, on CPU; other tensors in it are ignored.

        Raises:
            ContsegError: a tensor is missing, has a wrong shape or type, or contains nan or infinity.
        """
        try:
            features, classes, balanced = _described(state)
            values = {name: state[name] for name in ("counts", "totals", "starts", "grams")}
            width, count = features.width, len(classes)
            wanted = {"counts": (count,), "totals": (count, width), "starts": (count, width)}
            if count or not balanced:
                wanted["grams"] = (count if balanced else 1, width * (width + 1) // 2)
            for name, shape in wanted.items():
                if tuple(values[name].shape) != shape:
                    raise ValueError(f"{name} has the shape {tuple(values[name].shape)}, expected {shape}")
            for name, value in values.items():
                if not (value.dtype == torch.float64 and value.sum().isfinite()):
                    raise ValueError(f"{name} contains other values than finite ones in float64")
            grams = values["totals"].new_zeros(len(values["grams"]), width, width)
            for gram, triangle in zip(grams, values["grams"], strict=True):
                _fill(gram, triangle)
            # clones, as sums are added in place
            counts, totals = values["counts"].clone(), values["totals"].clone()
            return cls(features, classes, counts, totals, grams, values["starts"], balanced)
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise _unreadable(error) from None


def description_of(state: Mapping[str, Tensor]) -> tuple[RandomFeatures, tuple[str, ...], bool]:
    """Features, classes and `balanced` of the sums of a `RidgeSums.state_dict`, without reading their matrices.

    Raises:
        ContsegError: it cannot be read.
    """
    try:
        return _described(state)
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        raise _unreadable(error) from None


def _described(state: Mapping[str, Tensor]) -> tuple[RandomFeatures, tuple[str, ...], bool]:
    kept = json.loads(bytes(state["ridge"].tolist()))
    features = RandomFeatures.drawn(kept["tap"], kept["channels"], kept["expansion"], kept["seed"], kept["draw"])
    return features, tuple(kept["classes"]), bool(kept["balanced"])


def _unreadable(error: Exception) -> ContsegError:
    what = f"lack {error}" if isinstance(error, KeyError) else f"cannot be read ({' '.join(str(error).split())[:120]})"
    return ContsegError(f"statistics of CFSSeg: {what}; write them again with save_pretrained")


def _with_zeros(values: Tensor, count: int) -> Tensor:
    """The same rows and `count` rows of zeros."""
    return torch.cat([values, values.new_zeros(count, *values.shape[1:])])


def _add_gram(gram_MM: Tensor, phi_NM: Tensor) -> None:
    """Add phi^T phi, without the blocks above the diagonal."""
    for start in range(0, len(gram_MM), BLOCK):
        stop = min(start + BLOCK, len(gram_MM))
        gram_MM[start:stop, :stop].addmm_(phi_NM[:, start:stop].T, phi_NM[:, :stop])


def symmetric(gram_MM: Tensor) -> Tensor:
    """The whole matrix from its lower triangle, symmetric to the last bit."""
    return gram_MM.tril() + gram_MM.tril(-1).T


def _triangle(gram_MM: Tensor) -> Tensor:
    """The lower triangle, row by row: indices of all its entries would take more memory than the matrix."""
    return torch.cat([row[: place + 1] for place, row in enumerate(gram_MM)])


def _fill(gram_MM: Tensor, triangle: Tensor) -> None:
    """Write the lower triangle, row by row, in place."""
    for place, row in enumerate(triangle.split([*range(1, len(gram_MM) + 1)])):
        gram_MM[place, : place + 1] = row

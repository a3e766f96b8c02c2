"""The sums of the Gaussian head, which can be added and subtracted: counts, means and scatter of every class."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.methods.gaussian.features import Features


@dataclass(frozen=True, eq=False)
class GaussianSums:
    """Sums over labelled cells, in float64. They do not depend on the order of images, batches, ranks or steps.

    Classes are identified by name. Background contributes its mean only, as it may hide other classes; its sums are kept for
    each step, so that a step can be taken back.

    Args:
        features: the map phi, which is the same in all sums that are added.
        classes: names of K classes.
        counts: n_c, cells of each class, (K,).
        totals: m_c, sums of phi, (K, M).
        scatters: S_c, sums of (phi - m_c/n_c)(phi - m_c/n_c)^T, (K, M, M); (0, M, M) with a frozen covariance.
            Entries between parts of the features have no meaning and are not stored.
        steps: names of the classes that were learned together.
        background_counts, background_totals: n_0 and m_0 of each of T steps, (T,) and (T, M).
        frozen: a covariance (M, M) that replaces the scatters, or None.
    """

    features: Features
    classes: tuple[str, ...]
    counts: Tensor
    totals: Tensor
    scatters: Tensor
    steps: tuple[tuple[str, ...], ...]
    background_counts: Tensor
    background_totals: Tensor
    frozen: Tensor | None = None

    @classmethod
    def empty(cls, features: Features) -> "GaussianSums":
        """Sums over nothing."""
        width, zeros = features.width, features.mean.new_zeros
        none = (zeros(0), zeros(0, width))
        return cls(features, (), *none, zeros(0, width, width), (), *none)

    @property
    def covariance(self) -> Tensor:
        """The within-class covariance: the mean of S_c / n_c over the classes that have cells, (M, M)."""
        if self.frozen is not None:
            return self.frozen
        weights = (self.counts > 0) / self.counts.clamp(min=1) / (self.counts > 0).sum().clamp(min=1)
        return self.features.separated(torch.einsum("k,kij->ij", weights, self.scatters))

    @property
    def means(self) -> Tensor:
        """m_c / n_c, (K, M); 0 for a class without cells."""
        return self.totals / self.counts.clamp(min=1)[:, None]

    def __add__(self, other: "GaussianSums") -> "GaussianSums":
        """Both together. Steps of the same classes become one.

        Raises:
            ContsegError: the features differ.
        """
        return self._combined(other, _added)

    def __sub__(self, other: "GaussianSums") -> "GaussianSums":
        """What remains without `other`, which must be part of these sums; classes without cells are dropped.

        Raises:
            ContsegError: the features differ.
        """
        rest = self._combined(other, _subtracted)
        return rest.without(*(name for name, count in zip(rest.classes, rest.counts.tolist(), strict=True) if count <= 0))

    def _combined(self, other: "GaussianSums", scattered: Callable[..., Tensor]) -> "GaussianSums":
        if not self.features.same_as(other.features):
            raise ContsegError(
                "sums of two Gaussian heads: their features differ (tap, mean, deviation, expansion or seed);"
                " only sums over the same frozen network and step 0 can be added"
            )
        if (self.frozen is None) != (other.frozen is None) and self.classes and other.classes:
            raise ContsegError("sums of two Gaussian heads: only one has a frozen covariance; use the same for both")
        classes = (*self.classes, *(name for name in other.classes if name not in self.classes))
        steps = (*self.steps, *(step for step in other.steps if step not in self.steps))
        (n, m, s), (n2, m2, s2) = (each.only(classes) for each in (self, other))
        (n0, m0), (n20, m20) = (each._background_of(steps) for each in (self, other))
        sign = 1 if scattered is _added else -1
        frozen = self.frozen if self.frozen is not None else other.frozen
        scatters = s if frozen is not None else scattered(n, m, s, n2, m2, s2)
        return GaussianSums(
            self.features, classes, n + sign * n2, m + sign * m2, scatters, steps, n0 + sign * n20, m0 + sign * m20, frozen
        )

    def only(self, classes: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Counts, totals and scatters (if there are any) of some classes, in this order; 0 for those that were not seen."""
        own = [place for place, name in enumerate(self.classes) if name in classes]
        places, count = [classes.index(self.classes[place]) for place in own], len(classes)
        scatters = self.scatters if self.frozen is not None else _spread(self.scatters[own], places, count)
        return _spread(self.counts[own], places, count), _spread(self.totals[own], places, count), scatters

    def _background_of(self, steps: Sequence[tuple[str, ...]]) -> tuple[Tensor, Tensor]:
        places = [steps.index(step) for step in self.steps]
        return _spread(self.background_counts, places, len(steps)), _spread(self.background_totals, places, len(steps))

    def without(self, *names: str) -> "GaussianSums":
        """The sums as if classes had never been seen.

        The background of a step is dropped with the last of its classes. A frozen covariance does not change.

        Raises:
            ContsegError: a class is not part of the sums.
        """
        missing = [name for name in names if name not in self.classes]
        if missing:
            raise ContsegError(f"class '{missing[0]}': not part of the sums, which have {', '.join(self.classes)}")
        kept = [place for place, name in enumerate(self.classes) if name not in names]
        steps = [(tuple(name for name in step if name not in names), step) for step in self.steps]
        kept_steps = [place for place, (left, before) in enumerate(steps) if left or not before]
        return replace(
            self,
            classes=tuple(self.classes[place] for place in kept),
            counts=self.counts[kept],
            totals=self.totals[kept],
            scatters=self.scatters if self.frozen is not None else self.scatters[kept],
            steps=tuple(steps[place][0] for place in kept_steps),
            background_counts=self.background_counts[kept_steps],
            background_totals=self.background_totals[kept_steps],
        )

    def freeze(self) -> "GaussianSums":
        """The same sums with the covariance that they have now, for ever; the scatters of classes are dropped."""
        return replace(self, frozen=self.covariance, scatters=self.scatters[:0])

    def to(self, device: torch.device | str) -> "GaussianSums":
        """The same sums on a device."""
        tensors: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, features=self.features.to(device), **tensors)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which `from_state` makes the same sums. Of a symmetric matrix, one triangle of each part is kept."""
        described = {
            "classes": self.classes,
            "steps": self.steps,
            "tap": self.features.tap,
            "expansion": self.features.expansion,
            "seed": self.features.seed,
            "parts": self.features.parts,
        }
        state = {
            "description": torch.tensor(list(json.dumps(described).encode()), dtype=torch.uint8),
            "mean": self.features.mean,
            "std": self.features.std,
            "counts": self.counts,
            "totals": self.totals,
            "scatters": _triangles(self.scatters, self.features),
            "background_counts": self.background_counts,
            "background_totals": self.background_totals,
        }
        if self.frozen is not None:
            state["frozen"] = _triangles(self.frozen[None], self.features)
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "GaussianSums":
        """The sums of a `state_dict`, on CPU; other tensors in it are ignored.

        Raises:
            ContsegError: a tensor is missing, has a wrong shape or type, or contains nan or infinity.
        """
        try:
            described = json.loads(bytes(state["description"].tolist()))
            fixed, parts = (described["expansion"], described["seed"]), tuple(described.get("parts", ()))
            features = Features(described["tap"], state["mean"], state["std"], *fixed, parts)
            sums = cls(
                features,
                tuple(described["classes"]),
                state["counts"],
                state["totals"],
                _matrices(state["scatters"], features),
                tuple(map(tuple, described["steps"])),
                state["background_counts"],
                state["background_totals"],
                _matrices(state["frozen"], features)[0] if "frozen" in state else None,
            )
            sums._require_sound()
            return sums
        except KeyError as error:
            raise ContsegError(
                f"statistics of a Gaussian head: lack {error}; write them again with save_pretrained"
            ) from None
        except (ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise ContsegError(
                f"statistics of a Gaussian head: cannot be read ({' '.join(str(error).split())[:120]});"
                " write them again with save_pretrained"
            ) from None

    def _require_sound(self) -> None:
        """Raise ValueError if numbers are not finite, or do not fit the classes."""
        classes, width = len(self.classes), self.features.width
        sums = {"counts": self.counts, "totals": self.totals, "scatters": self.scatters, "frozen": self.frozen}
        sums |= {"background_counts": self.background_counts, "background_totals": self.background_totals}
        sums |= {"mean": self.features.mean, "std": self.features.std}
        for name, value in sums.items():
            if value is not None and not (value.dtype == torch.float64 and value.isfinite().all()):
                raise ValueError(f"{name} contains other values than finite ones in float64")
        shapes = (self.counts.shape, self.totals.shape, self.background_totals.shape, self.features.mean.shape)
        wanted = ((classes,), (classes, width), (len(self.background_counts), width), self.features.std.shape)
        if shapes != wanted or len(self.scatters) != (classes if self.frozen is None else 0):
            raise ValueError(f"shapes {[*map(tuple, shapes)]}, expected {[*map(tuple, wanted)]}")


def _added(n: Tensor, m: Tensor, s: Tensor, n2: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
    """Scatter of two sets together (Chan et al. 1979), for each class.

    Args:
        n, m, s, n2, m2, s2: counts (K,), totals (K, M) and scatters (K, M, M) of both sets.
    """
    apart = m / n.clamp(min=1)[:, None] - m2 / n2.clamp(min=1)[:, None]
    return s + s2 + _outer(apart, n * n2 / (n + n2).clamp(min=1))


def _subtracted(n: Tensor, m: Tensor, s: Tensor, n2: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
    """Scatter of a set without a part of it: the inverse of `_added`."""
    rest = n - n2
    apart = (m - m2) / rest.clamp(min=1)[:, None] - m2 / n2.clamp(min=1)[:, None]
    return s - s2 - _outer(apart, rest * n2 / n.clamp(min=1))


def _outer(apart_KM: Tensor, weights_K: Tensor) -> Tensor:
    return torch.einsum("k,ki,kj->kij", weights_K, apart_KM, apart_KM)


def _spread(values: Tensor, places: Sequence[int], count: int) -> Tensor:
    """Rows at their places among `count` rows, 0 elsewhere; rows of one place are added."""
    index = torch.tensor(places, dtype=torch.long, device=values.device)
    return values.new_zeros(count, *values.shape[1:]).index_add(0, index, values)


def _triangles(matrices: Tensor, features: Features) -> Tensor:
    rows, columns = features.triangle.to(matrices.device)
    return matrices[:, rows, columns]


def _matrices(triangles: Tensor, features: Features) -> Tensor:
    rows, columns = features.triangle
    matrices = triangles.new_zeros(len(triangles), features.width, features.width)
    matrices[:, rows, columns] = triangles
    matrices[:, columns, rows] = triangles
    return matrices

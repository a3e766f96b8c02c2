"""EWF: Endpoints Weight Fusion (Xiao et al., CVPR 2023), around any method that learns by updates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.methods.method import Method, StepContext
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step

SHARE_FUSED = 0.45
"""Share of the values that are fused if only those that moved most are."""


@dataclass(frozen=True)
class EWF(Method):
    """After a later step, the weights become a mean of those before and after it; old classifiers do not learn.

    The new weights count alpha = sqrt(new classes / all classes), background included. The mean covers everything that the
    segmenter had before the step: weights, classifiers of old classes, and statistics of norms, whose variances are averaged
    too. New classifiers keep what they learned, with features that are fused afterwards. The test of the step, the next
    teacher and what the method computes after the step are of the fused segmenter.

    It is a mixin: `fused(kind)` puts it before a method, and `method.fusion: ewf` selects it in a recipe.

    Args:
        fusion: which fusion.
        fused_values: `all`, or `moved`: the 45 % of the values that the step moved most, over all tensors.
        hold_old_classifiers: whether the classifiers of old classes are frozen, that of background included.
    """

    fusion: Literal["ewf"] = "ewf"
    fused_values: Literal["all", "moved"] = "all"
    hold_old_classifiers: bool = True

    def first_step_key(self) -> dict[str, Any]:
        """That of the method: step 0 is not fused."""
        return plain(self).first_step_key()

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """As the method; every later step must add classes."""
        super().check(network, steps)
        if self.learns_without_updates:
            raise ContsegError(
                f"method.fusion: '{self.name}' computes its weights and learns none to fuse; set method.fusion=null"
            )
        for step in steps[1:]:
            if not step.new_count:
                raise ContsegError(
                    f"method.fusion: step {step.index} adds no class, so the fused weights would be the old ones; set"
                    " method.fusion=null"
                )

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """As the method; in later steps, freeze the classifiers of old classes too."""
        super().prepare(segmenter, step)
        if step.old_count and self.hold_old_classifiers:
            segmenter.freeze_old_classifiers()

    def after_step(self, context: StepContext) -> None:
        """Fuse the weights, then what the method does."""
        if context.previous is not None:
            step = context.step
            alpha = fusion_share(step.old_count, step.new_count)
            fuse(context.previous.state_dict(), context.student.state_dict(), alpha, self.fused_values)
        super().after_step(context)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by the class that is fused, as this one is made on demand."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        return _remade, (type(self).__bases__[1], given, self.state)


def fusion_share(old: int, new: int) -> float:
    """alpha, the share of the new weights.

    Args:
        old, new: number of classes, background included.

    Example:
        >>> round(fusion_share(16, 1), 4)
        0.2425
    """
    return math.sqrt(new / (new + old))


@torch.no_grad()
def fuse(
    old: Mapping[str, Tensor], new: Mapping[str, Tensor], alpha: float, values: Literal["all", "moved"] = "all"
) -> None:
    """(1 - alpha) old + alpha new, into `new`, for every floating-point tensor in `old`.

    A tensor that has grown, such as a table per class, is fused in the part that it had before. Tensors that only one of the
    two has, counters and tensors of another rank or a smaller size stay as they are in `new`.

    Args:
        old, new: state dicts.
        values: with `moved`, values that differ less than a threshold stay as they are in `new`; see `moved_threshold`.

    Example:
        >>> new = {"gain": torch.tensor([2.0, 5.0]), "added": torch.tensor(1.0)}
        >>> fuse({"gain": torch.tensor([1.0])}, new, alpha=0.25)
        >>> new
        {'gain': tensor([1.2500, 5.0000]), 'added': tensor(1.)}
    """
    pairs = [pair for name, value in old.items() if name in new and (pair := _shared(value, new[name])) is not None]
    threshold = moved_threshold(pairs) if values == "moved" else None
    for before, after in pairs:
        fused = (1 - alpha) * before + alpha * after
        after.copy_(fused if threshold is None else fused.where((before - after).abs() >= threshold, after))


def moved_threshold(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The number int(0.45 n) of the n absolute differences, in descending order; infinite if that is 0.

    Args:
        pairs: tensors before and after, of equal shapes.

    Example:
        >>> moved_threshold([(torch.zeros(4), torch.tensor([1.0, -4.0, 2.0, 3.0]))])
        tensor(4.)
    """
    moved = torch.cat([(before - after).abs().flatten() for before, after in pairs])
    rank = int(SHARE_FUSED * len(moved))
    return moved.sort(descending=True).values[rank - 1] if rank else moved.new_tensor(math.inf)


def _shared(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor] | None:
    """A tensor before, and the part of it after that has the same entries; None if it is not fused."""
    if not before.is_floating_point() or before.ndim != after.ndim:
        return None
    if any(small > large for small, large in zip(before.shape, after.shape, strict=True)):
        return None
    part = after[tuple(slice(size) for size in before.shape)]
    return before.to(part), part


def fused(kind: type[Method]) -> type[Method]:
    """A method with EWF around it.

    Example:
        >>> from contseg.methods.mib import MiB
        >>> fused(MiB)(distillation=100.0)
        MiBWithEWF(distillation=100.0, fusion='ewf', fused_values='all', hold_old_classifiers=True)
    """
    if kind not in _MADE:
        made = type(f"{kind.__name__}WithEWF", (EWF, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
        _MADE[kind] = dataclass(frozen=True)(made)
    return _MADE[kind]


_MADE: dict[type[Method], type[Method]] = {}
"""The classes that `fused` made, so that two equal methods have one class."""


def plain(method: EWF) -> Method:
    """The method that is fused, without EWF and without state."""
    kind = type(method).__bases__[1]
    return kind(**{field.name: getattr(method, field.name) for field in fields(kind) if field.init})


def _remade(kind: type[Method], given: dict[str, Any], state: dict[str, Tensor]) -> Method:
    method = fused(kind)(**given)
    method.state.update(state)
    return method

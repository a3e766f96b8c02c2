"""The supervised term of a prediction of masks: targets, points, matching, and the terms of Mask2Former or of CoMFormer.

It does not depend on how an update is divided: points belong to (seed, step, update, prediction, image of the update), and
sums are divided by numbers of the whole update, over all ranks and passes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from contseg.losses.masks.criterion import NO_OBJECT, class_loss, class_targets, mask_losses, matching_costs
from contseg.losses.masks.matching import Matches, assign
from contseg.losses.masks.points import LayerPoints, draw_points
from contseg.losses.masks.softmax import softmax_mask_losses, softmax_matching_costs
from contseg.losses.masks.targets import MaskTargets
from contseg.models.output import MaskPrediction, SegmenterOutput
from contseg.precision import precise
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import with_targets

POINTS = 12544
"""Points at which masks are compared, 112 x 112; never more than a map of logits has values."""


class Update(Protocol):
    """What supervision reads of `StepContext`."""

    generator: torch.Generator
    ranks: Ranks
    pass_number: int
    update_seed: int | None
    batches_of_update: Callable[[], Sequence[Batch]] | None
    left_out: int


@dataclass(frozen=True)
class Matched:
    """A prediction and the targets that its queries belong to.

    Args:
        targets: of each image.
        matches: pairs of queries and targets.
        classes: (B, Q) int64, no-object for queries without a target.
        points: of the losses.
        number: N, masks of the update over ranks and passes, at least 1.
    """

    targets: list[MaskTargets]
    matches: Matches
    classes: Tensor
    points: LayerPoints
    number: Tensor


def targets_of(batch: Batch) -> list[MaskTargets]:
    """The targets of each image, with pseudo labels if a method has added some."""
    found = with_targets(batch).targets
    assert found is not None
    return [MaskTargets(*one) for one in found]


def mean_over_update(update: Update, batch: Batch, count: Callable[[Batch], float], like: Tensor) -> Tensor:
    """The mean of a count over the passes and ranks of an update, a scalar.

    Args:
        batch: of this pass, with its final labels.
        count: of a batch, from shapes or values on the CPU.
        like: of the dtype and the device of the result.
    """
    batches = [batch] if update.batches_of_update is None else update.batches_of_update()
    local = like.new_tensor(float(sum(map(count, batches))))
    return update.ranks.sum(local) / update.ranks.count / len(batches)


def matched_count(batch: Batch, queries: int, leaked: bool = False) -> int:
    """Number of queries of a batch that have a target with a class.

    Args:
        leaked: targets may be of the next step (`contseg.methods.mask_relabelling.with_leaked`), and are then no object.
    """
    targets, none = targets_of(batch), batch.annotated.shape[1]
    matched = sum(min(len(one.classes), queries) for one in targets)
    # One number of the whole batch, as the host waits for it.
    return matched - int((torch.cat([one.classes for one in targets]) == none).sum()) if leaked else matched


def match(output: SegmenterOutput, batch: Batch, update: Update) -> Matched:
    """Match the queries of a prediction with the targets of a batch.

    Args:
        output: with `masks`; an auxiliary output has points of its own.
    """
    prediction = output.masks
    assert prediction is not None
    logits, maps = prediction.class_logits, prediction.mask_logits
    targets, layer = targets_of(batch), str(getattr(output, "name", ""))
    like = precise(logits)
    points = _points(targets, maps, like, update, layer)
    costs = softmax_matching_costs if prediction.softmax else matching_costs
    matches = assign(costs(logits, maps, targets, points.matching))
    if not layer:
        update.left_out += matches.left_out
    classes = class_targets(matches, targets, (logits.shape[0], logits.shape[1]), logits.shape[2] - 1)
    number = mean_over_update(update, batch, lambda one: sum(len(each.classes) for each in targets_of(one)), like)
    passes = 1 if update.batches_of_update is None else len(update.batches_of_update())
    return Matched(targets, matches, classes, points, number.clamp_min(1 / update.ranks.count / passes))


def _points(targets: Sequence[MaskTargets], maps_BQhw: Tensor, like: Tensor, update: Update, layer: str) -> LayerPoints:
    """The points of a layer: those of an image are the same whatever rank or pass it is in."""
    seed = update.update_seed
    if seed is None:
        seed = int(torch.randint(2**62, (), generator=update.generator))
    queries, points = maps_BQhw.shape[1], min(POINTS, maps_BQhw.shape[2] * maps_BQhw.shape[3])
    first = (update.pass_number * update.ranks.count + update.ranks.rank) * len(targets)
    each = []
    for place, one in enumerate(targets):
        digest = hashlib.sha256(f"{seed} {layer} {first + place}".encode()).digest()
        generator = torch.Generator(like.device).manual_seed(int.from_bytes(digest[:7], "big"))
        each.append(draw_points(generator, [len(one.classes)], queries, points, like))
    parts = ([getattr(one, name) for one in each] for name in ("matching", "candidates", "random"))
    return LayerPoints(*(torch.cat(part) for part in parts))


def mask_and_dice(prediction: MaskPrediction, matched: Matched) -> dict[str, Tensor]:
    """The terms `mask` and `dice`, unweighted."""
    losses = softmax_mask_losses if prediction.softmax else mask_losses
    return losses(prediction.mask_logits, matched.targets, matched.matches, matched.points, matched.number)


def plain_class_term(
    class_logits_BQC: Tensor,
    matched: Matched,
    batch: Batch,
    update: Update,
    loss: Callable[[Tensor, Tensor], Tensor] = class_loss,
    leaked: bool = False,
) -> Tensor:
    """Cross-entropy of classes, sum of w nll / sum of w, where the sum of weights is that of the update.

    Args:
        loss: of logits and classes, with the weights of `class_loss`.
        leaked: as of `matched_count`.
    """
    found = loss(class_logits_BQC, matched.classes)
    if update.ranks.count == 1 and update.batches_of_update is None:
        return found
    queries = class_logits_BQC.shape[1]

    def weights(one: Batch) -> float:
        return NO_OBJECT * len(one.labels) * queries + (1 - NO_OBJECT) * matched_count(one, queries, leaked)

    return found * weights(batch) / mean_over_update(update, batch, weights, found)

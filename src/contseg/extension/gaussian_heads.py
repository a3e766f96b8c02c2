"""Candidates with a Gaussian head: closed form, one pass, no gradient."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.data.pipelines.augment import WholeImage
from contseg.data.textures import draw_scene
from contseg.engine.loading import Batches, evaluation_draws
from contseg.errors import ContsegError
from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.metrics import class_iou
from contseg.extension.cells import FEWEST
from contseg.extension.measure import CONFIDENT, Photo, PlainPhotos
from contseg.extension.task import Candidate, Task
from contseg.methods.gaussian.beside import columns_beside
from contseg.methods.gaussian.features import Features, maps
from contseg.methods.gaussian.gather import cell_labels, gather, sums_of_confident
from contseg.methods.gaussian.readout import RHO, Prior, apply, readout
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.layers import resize
from contseg.models.options import ReadoutTap
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch, Samples

COLUMNS = "gaussian-columns"
GAUSSIAN = ("gaussian", "gaussian-expanded", "pyramid", COLUMNS)
"""Names of the Gaussian heads."""
Group = Samples | PlainPhotos
EXPANSION = 512
"""Dimensions of a random expansion."""
LARGE = 500_000_000
"""Statistics of more bytes are computed on a random expansion, which has fewer dimensions."""
THRESHOLDS = (CONFIDENT, 0.8, 0.7, 0.6, 0.5, 0.0)
"""Scores from which a prediction of the old model may count as a label."""
SCENES = 16
"""Synthetic images that standardise features."""
RHOS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Ridges to choose from."""


def gaussian_heads(task: Task, method: str) -> Iterator[Candidate]:
    """The Gaussian heads that suit the model.

    With stored statistics of its old classes, the statistics of the new classes are added. Without, several ways are tried:
    statistics of old classes from confident predictions, on different features, with and without a random expansion; and
    columns for the new classes next to the old head, which stays as it is and has no statistics to add to later.

    Args:
        method: `auto` for all ways, `gaussian` for those with statistics, or the name of a way.
    """
    ways: dict[str, Callable[[], Way]] = {
        "gaussian": lambda: _from_confident(task, "head", 0, "equal"),
        "gaussian-expanded": lambda: _from_confident(task, "head", EXPANSION, "equal"),
        "pyramid": lambda: _from_confident(task, "pyramid", 0, "counts"),
        COLUMNS: lambda: _beside(task),
    }
    if task.sums is not None:
        ways = {"gaussian": lambda: _from_stored(task)}
    elif method in GAUSSIAN[1:]:
        ways = {method: ways[method]}
    elif method == "gaussian":
        del ways[COLUMNS]
    if len(ways) > 1 and "pyramid" not in task.old.taps:
        del ways["pyramid"]
    for name, way in ways.items():
        task.progress(f"computing {name}", 0, 1)
        started = time.monotonic()
        try:
            segmenter, sums, readout, note = way()
        except ContsegError as error:
            yield Candidate(name, None, time.monotonic() - started, str(error))
            continue
        yield Candidate(name, segmenter, time.monotonic() - started, note, sums, readout)


Way = tuple[Segmenter, GaussianSums | None, dict[str, Any], str]
"""Segmenter, sums to store, how its weights follow from them, and a note."""


def _from_stored(task: Task) -> Way:
    """Add the statistics of the new images to those of the model; the ridge and the prior stay."""
    assert task.sums is not None
    table = task.data.table
    sums = task.sums + gather(
        task.old, OneByOne([task.data.step().train], task.old), table, task.sums.features, learned=task.data.new
    )
    if task.old_images is not None and task.old_images.learn is not None:
        learn = task.old_images.learn
        first = int(table.has_background)
        names = [name for name, there in zip(table.names, learn.annotated, strict=True) if there][first:]
        sums = sums + gather(task.old, OneByOne([learn], task.old), table, task.sums.features, learned=names)
    return _with_head(task, sums, task.readout), sums, task.readout, "stored statistics of old classes"


def _from_confident(task: Task, tap: ReadoutTap, expansion: int, prior: Prior) -> Way:
    """Statistics of old classes from confident predictions; the ridge is chosen on a fifth of the images."""
    groups = _groups(task)
    fit, tune = _divided(groups)
    if len(task.data.table) * task.old.channels_of(tap) ** 2 * 8 > LARGE:
        expansion = EXPANSION
    features = standard_features(task.old, tap, expansion)
    confident = _threshold(task, groups)
    sums = _sums(task, fit, features, confident)
    options: dict[str, Any] = {"rho": _best_rho(task, sums, tune, prior) if tune else RHO, "prior": prior}
    sums = sums + _sums(task, tune, features, confident)
    lacking = [name for name in task.data.old.names[int(task.data.old.has_background) :] if name not in sums.classes]
    note = f"ridge {options['rho']:g}, old classes where the old score is at least {confident:g}" + (
        f"; no confident prediction of {', '.join(lacking)}" if lacking else ""
    )
    return _with_head(task, sums, options), sums, options, note


def standard_features(segmenter: Segmenter, tap: ReadoutTap, expansion: int) -> Features:
    """The features of a model without statistics, standardised on synthetic scenes and rounded.

    They depend on the model alone, so that the statistics of its extensions can be added (`contseg merge`).
    """
    device = segmenter.mean.device

    def scenes() -> Iterator[Batch]:
        for number in range(SCENES):
            image, _ = draw_scene(range(number, number + 4), (128, 128), np.random.default_rng(number))
            yield _unlabelled(Photo(str(number), image)).to(device)

    found = Features.measured(segmenter, scenes(), tap, expansion)
    std = found.std.clamp(min=0.1 * float(found.std.median()))  # a channel may be quiet only here
    return replace(found, mean=_rounded(found.mean), std=_rounded(std))


def _rounded(values: Tensor) -> Tensor:
    """To 5 bits, so that other machines find the same values."""
    mantissa, exponent = values.frexp()
    return ((mantissa * 32).round() / 32).ldexp(exponent)


def _beside(task: Task) -> Way:
    """Columns for the new classes next to the old head."""
    val = task.data.step().val
    lookup = np.where(val.lookup == len(task.data.table), 0, val.lookup).astype(np.uint8)  # certainly no new class
    batches = OneByOne([replace(val, names=task.data.train, lookup=lookup)], task.old)
    features = Features.measured(task.old, batches, "head")
    segmenter = _grown(task)
    offsets = columns_beside(segmenter, batches, task.data.table, features)
    return segmenter, None, {}, f"old head unchanged, margin {float(offsets.max()):.1f}"


def _grown(task: Task) -> Segmenter:
    segmenter = copy.deepcopy(task.old)
    segmenter.grow(len(task.data.new), "random")
    return segmenter.eval().requires_grad_(False)


def _with_head(task: Task, sums: GaussianSums, options: dict[str, Any]) -> Segmenter:
    segmenter = _grown(task)
    apply(segmenter, sums, task.data.table, **options)
    return segmenter.eval().requires_grad_(False)


def _groups(task: Task) -> list[Group]:
    """The images to learn from: new ones, whose unlabelled pixels are ignored, and old ones."""
    groups: list[Group] = [task.data.step().train]
    if task.old_images is not None and task.old_images.learn is not None:
        groups.append(task.old_images.learn)
    elif task.old_images is not None and isinstance(task.old_images.measure, PlainPhotos):
        groups.append(task.old_images.measure)
    return groups


def _divided(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """The groups without a fifth of the new images, and this fifth; nothing of fewer than five images."""
    train = groups[0]
    assert isinstance(train, Samples)
    tune = train.names[::5] if len(train) >= 5 else ()
    fit = replace(train, names=tuple(name for name in train.names if name not in tune))
    return [fit, *groups[1:]], [replace(train, names=tune)] if tune else []


def _sums(task: Task, groups: Sequence[Group], features: Features, confident: float) -> GaussianSums:
    """Statistics of old classes from labels and confident predictions, and of new classes from labels."""
    old, table, batches = task.data.old, task.data.table, OneByOne(groups, task.old)
    known = sums_of_confident(task.old, batches, old, features, p=confident)
    new = gather(task.old, _only_new(batches, len(old)), table, features, learned=task.data.new)
    return known + new


@torch.no_grad()
def _threshold(task: Task, groups: Sequence[Group]) -> float:
    """The highest score that enough cells of every class reach that the old model predicts often enough."""
    found = torch.zeros(len(THRESHOLDS), len(task.data.old))
    for batch in OneByOne(groups, task.old):
        best, predicted = task.old.scores(task.old(task.old.normalise(batch.images)).logits).max(dim=1)
        for place, threshold in enumerate(THRESHOLDS):
            found[place] += torch.bincount(predicted[best >= threshold], minlength=found.shape[1]).cpu()
    enough = found >= FEWEST
    return next(one for one, row in zip(THRESHOLDS, enough, strict=True) if torch.equal(row, enough[-1]))


def _only_new(batches: Iterable[Batch], old: int) -> Iterator[Batch]:
    """Batches in which only new classes are labelled."""
    for batch in batches:
        yield replace(batch, labels=batch.labels.where(batch.labels >= old, IGNORE))


def _best_rho(task: Task, sums: GaussianSums, groups: Sequence[Group], prior: Prior) -> float:
    """The ridge with the highest mean IoU over cells of other images: labels of new classes, else confident predictions."""
    table, old, phis, labels = task.data.table, len(task.data.old), [], []
    with torch.no_grad():
        for batch, map_BDhw in maps(task.old, OneByOne(groups, task.old), sums.features.tap):
            size = (map_BDhw.shape[2], map_BDhw.shape[3])
            phis.append(sums.features(map_BDhw.movedim(1, -1).flatten(0, 2)))
            labels.append(_likely(task.old, batch, size, old, len(table)).flatten())
    phi, truth = torch.cat(phis), torch.cat(labels)

    def mean_iou(rho: float) -> float:
        predicted = readout(sums, table, rho=rho, prior=prior).scores(phi).argmax(dim=1)
        return float(np.nanmean(class_iou(confusion_matrix(truth, predicted, len(table)).cpu().numpy())))

    return max(RHOS, key=mean_iou) if bool((truth < len(table)).any()) else RHO


def _likely(segmenter: Segmenter, batch: Batch, size: tuple[int, int], old: int, classes: int) -> Tensor:
    """Labels of cells (B, h, w): of new classes, and confident predictions elsewhere; 255 where neither is known."""
    given = cell_labels(batch.labels, size)
    best, predicted = resize(segmenter.scores(segmenter(segmenter.normalise(batch.images)).logits), size).max(dim=1)
    return given.where((given >= old) & (given < classes), predicted.where(best >= CONFIDENT, IGNORE))


class OneByOne:
    """Batches of one image each, at their own size.

    Args:
        groups: images with or without labels.
        segmenter: whose device the batches are on.
    """

    def __init__(self, groups: Sequence[Group], segmenter: Segmenter):
        self._groups, self._device = groups, segmenter.mean.device

    def __iter__(self) -> Iterator[Batch]:
        for group in self._groups:
            if isinstance(group, PlainPhotos):
                for photo in group:
                    yield _unlabelled(photo).to(self._device)
            else:
                draws = evaluation_draws(len(group), 1, WholeImage())
                yield from Batches(group, WholeImage(), draws, seed=0, step=0, device=self._device)


def _unlabelled(photo: Photo) -> Batch:
    """A batch of one image without labels."""
    pixels = torch.from_numpy(photo.image.copy()).permute(2, 0, 1)[None]
    labels = torch.full((1, *photo.image.shape[:2]), IGNORE, dtype=torch.uint8)
    return Batch(pixels, labels, (photo.name,), torch.zeros(1, 1, dtype=torch.bool))

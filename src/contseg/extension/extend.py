"""Teach a trained model new classes, from a folder in which only these are labelled."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contseg.atomic import atomic_folder, write_text
from contseg.data.classes import ClassTable
from contseg.data.datasets.labelled import Unlabelled, open_labelled
from contseg.digest import file_sha256, sha256
from contseg.errors import ContsegError, counted
from contseg.extension.candidates import candidates
from contseg.extension.cells import count_cells, separation, warnings
from contseg.extension.data import ExtensionData
from contseg.extension.folder import (
    PAGE,
    RECORD,
    Progress,
    memory_mb,
    quiet,
    readout_of,
    require_new,
    stored_mb,
    stored_sums,
    tensors_sha256,
)
from contseg.extension.measure import Comparison, LabelledPhotos, Photos, compare
from contseg.extension.old_images import OldImages, open_old_images
from contseg.extension.outcome import ClassOutcome, confusions, outcomes
from contseg.extension.page import PICTURES, Picture, picture, write_page
from contseg.extension.task import Candidate, Task
from contseg.interop.pretrained import save_pretrained
from contseg.models.segmenter import Segmenter
from contseg.recipes.models import Opened, open_model

MOST = 100
"""Training images, and old images, on which the models are compared."""


@dataclass(frozen=True)
class Extension:
    """An extended model, and what it learned, kept and lost.

    Args:
        folder: the new model, a folder of `save_pretrained`, with `result.json` and `report.html`.
        segmenter: the new model, in eval mode.
        table: its classes, in output order.
        classes: a row per class.
        record: everything that was measured; the content of `result.json`.
    """

    folder: Path
    segmenter: Segmenter
    table: ClassTable
    classes: tuple[ClassOutcome, ...]
    record: dict[str, Any]

    def __str__(self) -> str:
        """The table of classes as text."""
        rows = [("class", "result", "before", "after", "agreement"), *(row.cells() for row in self.classes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def extend(
    model: Path | str,
    data: Path | str,
    out: Path | str,
    *,
    classes: Sequence[str] | None = None,
    method: str = "auto",
    keep: Path | str | None = None,
    unlabelled: Unlabelled = "unknown",
    minutes: float = 5.0,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Progress = quiet,
) -> Extension:
    """Teach a trained model new classes, from a folder in which only these need to be labelled.

    The model itself is not changed. The new folder appears when everything is written; an interrupted call leaves none.

    Args:
        model: anything that `predict` reads: a run, a folder or file of a segmenter, or a model of another library.
        data: labelled images, see `contseg.data.datasets.labelled.open_labelled`. Classes that the model lacks are new.
        out: folder of the new model; must not exist.
        classes: names of the new classes to learn; default: all.
        method: `auto` tries the Gaussian head, and gradient methods within `minutes`, and keeps the best: the highest
            harmonic mean of the IoU of the new classes on held-out images and the agreement with the old model. Or the name
            of a method.
        keep: old images, labelled or not: measured before and after; half of the labelled ones are also learned from.
        unlabelled: the meaning of pixels without a label in `data`: `unknown` (an old class is possible) or `background`.
        minutes: time limit of all gradient methods together.
        seed: of the held-out images and of all random draws.
        options: options of `open_labelled` for `data` and `keep`, such as `{"follow_links": True}`.
        device: such as `cpu` or `cuda`; default: a GPU if there is one.
        progress: called with the current work, and how much of it is done.

    Raises:
        ContsegError: the model or the data cannot be read, nothing is new, `out` exists, or no method succeeded.
    """
    started, out = time.monotonic(), Path(out)
    require_new(out)
    opened = open_model(model, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
    task = make_task(opened, data, classes, keep, unlabelled, minutes, seed, progress, options or {})
    table, groups = task.table, photos_of(task.data, task.old_images, seed)
    tried = list(candidates(task, method))
    able = {one.name: one.segmenter for one in tried if one.segmenter is not None}
    if not able:
        raise ContsegError(f"no method can extend {model}: {'; '.join(f'{one.name}: {one.note}' for one in tried)}")
    total, done = sum(map(len, groups)), iter(range(1, 1 << 30))
    found = compare(
        task.old,
        list(able.values()),
        groups,
        len(table),
        task.inference,
        lambda: progress("measuring", next(done), total),
    )
    compared = dict(zip(able, found, strict=True))
    best = max(able, key=lambda name: (compared[name].score, compared[name].agreed or 0.0))
    segmenter, comparison = able[best], compared[best]
    chosen = next(one for one in tried if one.name == best)
    origin = provenance(opened, task, chosen, str(model), str(data), unlabelled)
    rows = tuple(outcomes(table.names, comparison))
    record: dict[str, Any] = {
        **measured(task, segmenter, rows, comparison),
        "candidates": rows_of(tried, chosen, compared),
        "method": best,
        "base": {"path": str(model), "kind": opened.kind},
        "notes": [*opened.notes, *task.data.notes, *(() if task.old_images is None else task.old_images.notes)],
        "provenance": origin,
        "commands": next_commands(str(data), out, keep, task.data.new[0], options or {}),
    }
    pictures = draw(comparison, groups, task, segmenter)
    with atomic_folder(out) as folder:
        statistics = None if chosen.sums is None else chosen.sums.state_dict()
        save_pretrained(folder, segmenter, table, origin, statistics=statistics)
        record |= {"seconds": time.monotonic() - started, "memory_mb": memory_mb(), "stored_mb": stored_mb(folder)}
        write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
        write_page(folder / PAGE, record, pictures, table)
    return Extension(out, segmenter, table, rows, record)


def make_task(
    opened: Opened,
    data: Path | str,
    classes: Sequence[str] | None,
    keep: Path | str | None,
    unlabelled: Unlabelled,
    minutes: float,
    seed: int,
    progress: Progress,
    options: Mapping[str, Any],
) -> Task:
    """What is to be learned; see `extend`.

    Raises:
        ContsegError: the data cannot be read, nothing is new, or there are too few images.
    """
    dataset = open_labelled(data, **options)
    found = ExtensionData.of(
        dataset,
        opened.classes,
        wanted=classes,
        unlabelled=unlabelled,
        seed=seed,
        progress=lambda done, total: progress("reading masks", done, total),
    )
    table = replace(found.table, void=opened.classes.void)  # without the id of unlabelled pixels
    if len(found.train) + len(found.held_out) < 2:
        raise ContsegError(
            f"{dataset.root}: only {counted(len(found.train), 'labelled image')}; label at least 2, better 30"
        )
    return Task(
        opened.segmenter.eval().requires_grad_(False),
        opened.inference,
        found,
        table,
        stored_sums(opened),
        readout_of(opened),
        None if keep is None else open_old_images(Path(keep), table, options),
        seconds=60 * minutes,
        seed=seed,
        progress=progress,
    )


def provenance(
    opened: Opened, task: Task, chosen: Candidate, model: str, data: str, unlabelled: Unlabelled
) -> dict[str, Any]:
    """Where the new model comes from, as stored in its folder."""
    found = task.data
    return {
        "base": {
            "path": model,
            "sha256": tensors_sha256(task.old),
            "statistics": task.sums is not None,
            "source": opened.source,
        },
        "data": {"path": data, "sha256": data_sha256(found), "images": len(found.train) + len(found.held_out)},
        "method": chosen.name,
        "seed": task.seed,
        "unlabelled": unlabelled,
        "classes": {"new": list(found.new), "known": list(found.known)},
        "readout": chosen.readout,
        "inference": opened.inference.options.model_dump(mode="json"),
    }


def measured(task: Task, new: Segmenter, rows: Sequence[ClassOutcome], comparison: Comparison) -> dict[str, Any]:
    """Everything that was measured of the new model."""
    found, names = task.data, task.table.names
    step, stride, old = found.step(), task.old.options.backbone.stride, len(names) - len(found.new)
    cells = count_cells(step.train, len(names), stride)
    separated = separation(new, LabelledPhotos(step.val), len(names), stride, task.inference)
    return {
        "new": list(found.new),
        "images": {
            "train": len(found.train),
            "held_out": len(found.held_out),
            "keep": 0 if task.old_images is None else len(task.old_images.measure),
        },
        "classes": [row.as_json() for row in rows],
        "learned": comparison.learned,
        "agreement": comparison.agreed,
        "disagreement": {
            "all": comparison.disagreement(confident=False),
            "confident": comparison.disagreement(confident=True),
        },
        "confusions": confusions(names, comparison),
        "warnings": warnings(names, old, cells, separated),
    }


def photos_of(data: ExtensionData, old_images: OldImages | None, seed: int) -> list[Photos]:
    """The images on which models are compared: held-out ones, at most `MOST` training images, and old ones."""
    val = data.step().val
    order = np.random.default_rng(seed).permutation(len(data.train))[:MOST]
    train = replace(val, names=tuple(data.train[place] for place in sorted(order)))
    groups: list[Photos] = [LabelledPhotos(val), LabelledPhotos(train, scored=False)]
    return groups if old_images is None else [*groups, old_images.measure]


def rows_of(tried: Sequence[Candidate], chosen: Candidate, compared: dict[str, Comparison]) -> list[dict[str, Any]]:
    """A row per candidate: its name, metrics, time and note."""
    rows = []
    for one in tried:
        figures = compared.get(one.name)
        rows.append(
            {
                "name": one.name,
                "chosen": one is chosen,
                "learned": figures and figures.learned,
                "agreed": figures and figures.agreed,
                "score": figures and figures.score,
                "seconds": one.seconds,
                "note": one.note,
            }
        )
    return rows


def draw(comparison: Comparison, groups: Sequence[Photos], task: Task, new: Segmenter) -> list[Picture]:
    """Pictures of the images in which most pixels changed, largest first."""
    worst = sorted(comparison.changed, key=lambda name: -comparison.changed[name])[:PICTURES]
    found = {}
    for photos in groups:
        for photo in photos.only(worst):
            changed = comparison.changed[photo.name]
            found[photo.name] = picture(photo, changed, task.old, new, task.table, task.inference)
    return [found[name] for name in worst]


def data_sha256(data: ExtensionData) -> str:
    """SHA-256 of the names and files of the used images and of their masks."""
    files = cache(file_sha256)  # annotations of all images may be in one file
    parts: list[str | bytes] = []
    for name in sorted((*data.train, *data.held_out)):
        parts += [name, files(data.dataset.image_path(name)), files(data.dataset.mask_path(name))]
    return sha256(*parts)


def next_commands(data: str, out: Path, keep: Path | str | None, new: str, options: Mapping[str, Any]) -> list[str]:
    """Commands that may follow an extension."""
    model, everywhere = str(out), ("follow_links", "max_pixels")
    read = [
        f"data.{key if key in everywhere else f'options.{key}'}={json.dumps(value)}"
        for key, value in options.items()
        if keep
    ]
    lines = [
        ["contseg", "predict", model, "IMAGES", "--out", "predictions"],
        ["contseg", "evaluate", model, "--data", str(keep) if keep else "FOLDER", *read],
        ["contseg", "forget", model, "--class", new, "--out", f"{model}-without-{new}"],
        ["contseg", "export", model, "--to", "onnx", "--out", f"{model}.onnx"],
    ]
    return [shlex.join(line) for line in lines]

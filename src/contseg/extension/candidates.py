"""The methods that an extension tries."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference
from contseg.extension.data import ExtensionData
from contseg.extension.folder import Progress, quiet
from contseg.extension.learn import learn
from contseg.extension.old_images import OldImages
from contseg.methods.registry import METHODS, make_method
from contseg.models.segmenter import Segmenter
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.step import Step

WITH_BACKGROUND, WITHOUT_BACKGROUND = ("mib", "plop"), ("lwf", "finetune")
"""Gradient methods of `auto`, for models with and without a background class."""
FOLDING = {"mib", "plop", "sdr", "idec", "ssul", "lag"}
"""Methods for which a background label may hide an old class."""


@dataclass(frozen=True)
class Task:
    """What the methods learn.

    Args:
        old: the model to extend; no method changes it.
        inference: of the model.
        statistics: folder with the statistics of a Gaussian head, if the model has one.
        old_images: of `--keep`, if given.
        seconds: time for all gradient methods together.
    """

    old: Segmenter
    inference: Inference
    statistics: Path | None
    data: ExtensionData
    old_images: OldImages | None = None
    seconds: float = 300.0
    seed: int = 0
    progress: Progress = quiet


@dataclass(frozen=True)
class Candidate:
    """The result of a method.

    Args:
        segmenter: None if the method failed.
        seconds: that it took.
        note: how it ended, in a few words.
        statistics: of a Gaussian head, to store.
    """

    name: str
    segmenter: Segmenter | None
    seconds: float
    note: str = ""
    statistics: Any = field(default=None, repr=False)


def candidates(task: Task, method: str) -> Iterator[Candidate]:
    """Try a method, or with `auto` the Gaussian head and the gradient methods that suit the model, within the time.

    Raises:
        ContsegError: the method is unknown; or it is not `auto` and failed.
    """
    if method not in ("auto", "gaussian"):
        METHODS.check(method)
    background = task.data.table.has_background
    names = ("gaussian", *(WITH_BACKGROUND if background else WITHOUT_BACKGROUND)) if method == "auto" else (method,)
    deadline = time.monotonic() + task.seconds
    for place, name in enumerate(names):
        if name == "gaussian":
            started = time.monotonic()
            yield from gaussian_heads(task)
            deadline += time.monotonic() - started  # the time is that of gradient methods
            continue
        seconds = (deadline - time.monotonic()) / (len(names) - place)
        try:
            yield _learned(task, name, seconds)
        except ContsegError as error:
            if method != "auto":
                raise
            yield Candidate(name, None, 0.0, str(error))


def _learned(task: Task, name: str, seconds: float) -> Candidate:
    """The result of a gradient method.

    Raises:
        ContsegError: the method does not suit the model, or the time is too short.
    """
    method, old = make_method(name), task.old
    if name in FOLDING and not task.data.table.has_background:
        raise ContsegError(f"{name}: models the background, and this model has none; use lwf or gaussian")
    if method.needs_unknown and not old.options.unknown:
        raise ContsegError(f"{name}: needs an output 'unknown', which this model lacks; use mib or gaussian")
    if seconds <= 0:
        raise ContsegError(f"{name}: no time left; raise --minutes")
    started = time.monotonic()
    found = learn(
        method,
        old,
        step_of(task, name),
        seconds,
        seed=task.seed,
        inference=task.inference,
        progress=lambda share: task.progress(f"learning with {name}", round(1000 * share), 1000),
    )
    ended = "all epochs" if found.finished else "until the time was over"
    return Candidate(name, found.segmenter, time.monotonic() - started, f"{found.updates} updates, {ended}")


def step_of(task: Task, name: str) -> Step:
    """The step that a gradient method learns; labelled old images are its memory."""
    policy = LabelPolicy("ssul" if task.old.options.unknown else "plop")
    as_background = name in FOLDING
    step = task.data.step(policy, unlabelled_as="background" if as_background else "ignored")
    if task.old_images is None or task.old_images.learn is None or task.old.options.unknown:
        return step
    samples = task.old_images.learn
    lookup = np.where(samples.lookup >= step.seen_count, IGNORE, samples.lookup).astype(np.uint8)
    return replace(step, memory=(replace(samples, lookup=lookup),))


def gaussian_heads(task: Task) -> Iterator[Candidate]:
    """The Gaussian heads."""
    yield from ()

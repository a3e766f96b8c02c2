"""The methods that an extension tries."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError, did_you_mean
from contseg.extension.gaussian_heads import GAUSSIAN, gaussian_heads
from contseg.extension.learn import learn
from contseg.extension.task import Candidate, Task
from contseg.methods.registry import METHODS, make_method
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.step import Step

WITH_BACKGROUND, WITHOUT_BACKGROUND = ("mib", "plop"), ("lwf", "finetune")
"""Gradient methods of `auto`, for models with and without a background class."""
FOLDING = {"mib", "plop", "sdr", "idec", "ssul", "lag"}
"""Methods for which a background label may hide an old class."""


def candidates(task: Task, method: str) -> Iterator[Candidate]:
    """Try a method, or with `auto` the Gaussian head and the gradient methods that suit the model, within the time.

    Raises:
        ContsegError: the method is unknown; or it is not `auto` and failed.
    """
    choices = {"auto", *GAUSSIAN, *METHODS}
    if method not in choices:
        raise ContsegError(f"--method: unknown method '{method}'; {did_you_mean(method, choices)}")
    background = task.data.table.has_background
    names = ("gaussian", *(WITH_BACKGROUND if background else WITHOUT_BACKGROUND)) if method == "auto" else (method,)
    deadline = time.monotonic() + task.seconds
    for place, name in enumerate(names):
        if name in GAUSSIAN:
            started = time.monotonic()
            yield from gaussian_heads(task, method)
            deadline += time.monotonic() - started  # the time is that of gradient methods
            continue
        started = time.monotonic()
        seconds = (deadline - started) / (len(names) - place)
        try:
            yield _learned(task, name, seconds)
        except ContsegError as error:
            if method != "auto":
                raise
            yield Candidate(name, None, time.monotonic() - started, str(error).removeprefix(f"{name}: "))


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
    if old.options.background not in method.backgrounds:
        raise ContsegError(
            f"{name}: needs a network with network.background={method.backgrounds[0]}, and this model has"
            f" {old.options.background}; use gaussian"
        )
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
    ended = "complete" if found.finished else "until the time was over"
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

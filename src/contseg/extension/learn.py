"""Learn new classes with a gradient method, within a time limit."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from contseg.engine.optimiser import make_optimiser
from contseg.engine.options import TrainingOptions
from contseg.engine.own_loop import training_batches
from contseg.errors import ContsegError
from contseg.evaluation.inference import WHOLE, Inference
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import with_targets
from contseg.scenarios.step import Step

EPOCHS, LEAST = 30, 400
"""A step is trained for so many epochs, or for so many updates if that is more."""
TOO_FEW = 20
"""A method that is slower than this many updates in its time is given up."""
CONVOLUTIONAL = TrainingOptions(batch=8, lr_later=0.01, lr_factors={"classifier": 10.0})
TRANSFORMER = CONVOLUTIONAL.model_copy(update={"optimiser": "adamw", "lr_later": 1e-4, "weight_decay": 0.01})
"""For networks with layer norms."""


@dataclass(frozen=True)
class Learned:
    """A segmenter with new classes.

    Args:
        updates: updates of its weights.
        seconds: that they took.
        finished: whether all updates were done, rather than the time was over.
    """

    segmenter: Segmenter
    updates: int
    seconds: float
    finished: bool


def learn(
    method: Method,
    old: Segmenter,
    step: Step,
    seconds: float,
    *,
    seed: int = 0,
    inference: Inference = WHOLE,
    progress: Callable[[float], None] = lambda share: None,
) -> Learned:
    """Train a copy of a segmenter on a step. The learning rate falls to 0 over the updates or the time.

    Norms keep their statistics, as batches are small. The segmenter itself is not changed.

    Args:
        seconds: time limit; it is checked after every update, and within a pass of the method over the images.
        inference: of the model; a network that requires a fixed input size is trained on crops of that size.
        progress: called after every update with the share of the work that is done, in (0, 1].

    Raises:
        ContsegError: the method cannot learn this step with this network, or the time is too short (names both).
    """
    method.check(old.options, [step])
    started = time.monotonic()
    options = TRANSFORMER if any(isinstance(one, nn.LayerNorm) for one in old.modules()) else CONVOLUTIONAL
    crop, batch, device = crop_of(step, inference), min(options.batch, len(step.train)), old.mean.device
    per_epoch = max(1, (len(step.train) + sum(map(len, step.memory))) // batch)
    epochs = max(EPOCHS, -(-LEAST // per_epoch))
    total = epochs * per_epoch
    student, teacher = copy.deepcopy(old), copy.deepcopy(old)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student.grow(step.new_count, method.new_classes_start_from)
        student.freeze(norms=True)
        method.prepare(student, step)

        def epoch_batches(epoch: int) -> Iterable[Batch]:
            return training_batches(step, epoch, batch=batch, crop=crop, seed=seed, device=device)

        within = _Within(epoch_batches(epochs), started + seconds, f"{method.name}: no update in {seconds:.0f} s")
        context = StepContext.for_loop(student, teacher, step, method, within, epochs)
        context.average, context.updates = "valid", per_epoch  # few pixels have a label
        optimiser = make_optimiser(method.parameter_groups(student, step), student, options, step.index)
        student.train()
        method.before_step(context)
        updates = 0
        for context.epoch, images in ((number, images) for number in range(epochs) for images in epoch_batches(number)):
            done = max((time.monotonic() - started) / seconds, updates / total)
            if done >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = options.lr_later * group["lr_factor"] * (1 - done) ** options.power
            _update(method, context, optimiser, images)
            updates += 1
            if updates % per_epoch == 0:
                method.after_epoch(context)
            progress(max(done, updates / total))
        if updates < min(TOO_FEW, total):
            raise ContsegError(f"{method.name}: only {updates} updates in {seconds:.0f} s; raise --minutes")
        method.after_step(context)
    student.freeze()
    finished = updates == total
    return Learned(student.eval().requires_grad_(False), updates, time.monotonic() - started, finished)


def _update(method: Method, context: StepContext, optimiser: torch.optim.Optimizer, batch: Batch) -> None:
    """Update the weights once."""
    student = context.student
    old = context.predict_teacher(batch) if context.predict_teacher else None
    output = student(student.normalise(batch.images), taps=method.taps if old else method.first_taps)
    batch = method.relabel(batch, old, context)
    if student.options.masks:
        batch = with_targets(batch)
    losses = method.losses(batch, output, old, context)
    terms = [*losses.values(), *(one.weight * method.supervise(one, batch, context) for one in output.auxiliary)]
    optimiser.zero_grad(set_to_none=True)
    torch.stack(terms).sum().backward()
    method.after_backward(context)
    torch.nn.utils.clip_grad_norm_(student.parameters(), 10.0)
    optimiser.step()
    method.after_update(context)
    student.observe(output, batch.labels, context.ranks, context.generator)


class _Within:
    """Batches that end with an error when the time is over."""

    def __init__(self, batches: Iterable[Batch], deadline: float, problem: str):
        self._batches, self._deadline, self._problem = batches, deadline, problem

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            if time.monotonic() > self._deadline:
                raise ContsegError(f"{self._problem}; raise --minutes")
            yield batch


def crop_of(step: Step, inference: Inference = WHOLE) -> int:
    """Side of the training crops in pixels: the window of a model that predicts in windows or at a fixed size; otherwise the
    median shorter side of 20 images, from 64 to 512, in steps of 32.
    """
    options = inference.options
    if options.resize is not None:
        return min(options.resize)
    if options.mode == "slide":
        return min(options.window)
    sides = sorted(min(step.train.read(index)[0].shape[:2]) for index in range(min(20, len(step.train))))
    return max(64, min(512, sides[len(sides) // 2] // 32 * 32))

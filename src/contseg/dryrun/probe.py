"""A few true iterations of a recipe on this machine, timed: what its cost is estimated from."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from contseg.dryrun.stand_ins import ready_norms, with_changes
from contseg.engine.job import Job, Reporter
from contseg.engine.memory import peak_memory
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.method import Method
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step

STEPS = 2
"""Steps of a probe: the first one has no teacher, and all later ones are like the second."""
EPOCHS = 2
UPDATES = 3
"""Per epoch. The first one of an epoch is not timed, as readers start and kernels are chosen."""
TESTS = 3
"""Batches of test images."""


@dataclass(frozen=True)
class Measured:
    """What was measured in a step; times in seconds.

    Args:
        update: per update of the weights.
        epoch: per epoch, in addition to its updates: saving the state, starting readers.
        test: per batch of the test.
        once: per step: growing, saving.
        before, after: the method's calls before the first and after the last update.
        images: training images in those calls.
        flops: floating point operations of an update; None if they cannot be counted.
        parameters: of the segmenter.
        kept: bytes in the folder of the step when it is finished, with the segmenter.
        state: bytes of the state that is saved after each epoch.
    """

    update: float
    epoch: float
    test: float
    once: float
    before: float
    after: float
    images: int
    flops: int | None
    parameters: int
    kept: int
    state: int


@dataclass(frozen=True)
class Probe:
    """The results of a probe.

    Args:
        steps: of step 0 and, if there is one, of step 1.
        memory: peak memory in bytes, of the GPU if there is one, else of this process; None if unknown.
        seconds: duration of the probe.
        device: on which it ran.
    """

    steps: tuple[Measured, ...]
    memory: int | None
    seconds: float
    device: str


def probe(job: Job, ranks: int = 1, clock: Callable[[], float] = time.perf_counter) -> Probe:
    """Train a few updates of the first two steps of a job, with its own data, and time them.

    Args:
        job: on one rank, in an empty folder that the caller deletes. Its recipe has been saved there.
        ranks: of the run; the probe is one of them, with its part of each batch.
        clock: seconds.

    Raises:
        ContsegError: training fails.
    """
    started = clock()
    short = _short(job, ranks)
    on_gpu = torch.cuda.is_available() and job.training.accelerator != "cpu"
    watch = _Watch(clock, Run(job.folder), count=not job.training.compile, synchronise=on_gpu)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    train(short, watch)
    steps = tuple(times.measured(short, step) for times, step in zip(watch.steps, short.scenario, strict=True))
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    return Probe(steps, peak_memory(on_gpu), clock() - started, device)


def _short(job: Job, ranks: int) -> Job:
    """The job with few images and epochs, and the batch of one rank."""
    batch = max(1, job.training.batch // ranks)
    epochs = [EPOCHS if job.training.epochs_of(step.index) else 0 for step in job.scenario[:STEPS]]
    scenario = job.scenario.head(STEPS, UPDATES * batch * job.training.accumulate, TESTS * batch)
    training = with_changes(job.training, batch=batch, epochs=epochs)
    return replace(job, scenario=scenario, training=training, method=_ready(job.method, single=batch == 1))


def _ready(method: Method, single: bool) -> Method:
    """The method, changed in place so that untrained networks stay finite, see `ready_norms`."""
    kind = type(method)

    class Ready(kind):  # type: ignore[misc, valid-type]
        def prepare(self, segmenter: Segmenter, step: Step) -> None:
            super().prepare(segmenter, step)
            ready_norms(segmenter, single)

    object.__setattr__(method, "__class__", Ready)
    return method


@dataclass
class _Times:
    """The events of a step, in seconds of the clock."""

    last_ended: float
    started: float = 0.0
    updated: list[list[float]] = field(default_factory=lambda: [[]])
    epochs: list[float] = field(default_factory=list)
    testing: float = 0.0
    tested: list[float] = field(default_factory=list)
    ended: float = 0.0
    flops: int | None = None
    state: int = 0

    def measured(self, job: Job, step: Step) -> Measured:
        """The times and sizes of the step."""
        folder = Run(job.folder).step_folder(step.index)
        update = _mean([later - one for epoch in self.updated for one, later in pairwise(epoch)])
        epoch = max(0.0, self.epochs[1] - self.epochs[0] - update * len(self.updated[1])) if self.epochs else 0.0
        test = _mean([later - one for one, later in pairwise(self.tested)])
        return Measured(
            update=update,
            epoch=epoch,
            test=test,
            once=max(0.0, self.ended - self.testing - test * len(self.tested)),
            before=self.started - self.last_ended,
            after=self.testing - (self.epochs[-1] if self.epochs else self.started),
            images=len(step.train),
            flops=self.flops,
            parameters=sum(one.numel() for one in load_segmenter(folder / "segmenter.safetensors")[0].parameters()),
            kept=sum(path.stat().st_size for path in folder.iterdir()),
            state=self.state,
        )


class _Watch(Reporter):
    """Keeps the times of each step.

    Args:
        count: whether operations are counted, in the first update of each step.
        synchronise: whether to wait for the GPU before the clock is read.
    """

    def __init__(self, clock: Callable[[], float], run: Run, *, count: bool, synchronise: bool):
        self._clock, self._run, self._count, self._synchronise = clock, run, count, synchronise
        self._counting = ExitStack()
        self._counter: FlopCounterMode | None = None
        self.steps: list[_Times] = []

    def start(self, updates: Sequence[int]) -> None:
        self.steps.append(_Times(self._now()))

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        self.steps[-1].started = self._now()
        if self._count and updates:
            self._counter = self._counting.enter_context(FlopCounterMode(display=False))

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        if self._counter is not None:
            self._counting.close()
            self.steps[-1].flops, self._counter = self._counter.get_total_flops(), None
        self.steps[-1].updated[-1].append(self._now())

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        self.steps[-1].epochs.append(self._now())
        self.steps[-1].updated.append([])
        self.steps[-1].state = self._run.state_path(len(self.steps) - 1).stat().st_size

    def evaluating(self, batches: int) -> None:
        self.steps[-1].testing = self._now()

    def evaluated(self) -> None:
        self.steps[-1].tested.append(self._now())

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        now = self._now()
        self.steps[-1].ended = now
        if len(self.steps) < STEPS:
            self.steps.append(_Times(now))

    def stop(self) -> None:
        self._counting.close()  # after an error in the first update

    def _now(self) -> float:
        if self._synchronise:
            torch.cuda.synchronize()
        return self._clock()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

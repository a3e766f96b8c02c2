"""What a run costs before it is started: images, updates, parameters, operations, memory, disk and time."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from contseg.data.presence import Progress
from contseg.dryrun.probe import Measured, Probe, probe
from contseg.dryrun.stand_ins import with_changes
from contseg.engine.job import Job
from contseg.engine.loading import Shard, drawn_images, evaluation_draws
from contseg.methods.method import Method
from contseg.models.backbones.options import ResNetOptions
from contseg.models.make import make_segmenter
from contseg.models.options import first_widths
from contseg.recipes.build import make_job, start_run
from contseg.recipes.recipe import Recipe
from contseg.scenarios.batch import Samples


@dataclass(frozen=True)
class StepCost:
    """The cost of a step. What was not measured is None.

    Args:
        index: of the step.
        images: training images of an epoch.
        epochs, updates: of the step.
        tests: number of test images.
        parameters: of the segmenter after the step.
        flops: floating point operations per training image, forward and backward, with those of the teacher.
        training, testing: seconds.
        kept: bytes of the files that stay.
    """

    index: int
    images: int
    epochs: int
    updates: int
    tests: int
    parameters: int
    flops: float | None = None
    training: float | None = None
    testing: float | None = None
    kept: int | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Args:
        steps: of each step.
        first_step: key of step 0, which runs with the same key share.
        images_per_update: batch x passes.
        memory: peak memory per rank in bytes, or None.
        working: bytes on disk that are needed only while the run trains, or None.
        probe: what the times come from; None with a named throughput.
    """

    steps: tuple[StepCost, ...]
    first_step: str
    images_per_update: int
    memory: int | None
    working: int | None
    probe: Probe | None

    @property
    def trained_images(self) -> int:
        """Images of all updates."""
        return self.images_per_update * sum(step.updates for step in self.steps)

    @property
    def training(self) -> float | None:
        """Seconds of training in all steps."""
        return total([step.training for step in self.steps])

    @property
    def testing(self) -> float | None:
        """Seconds of tests after all steps."""
        return total([step.testing for step in self.steps])

    @property
    def seconds(self) -> float | None:
        """Seconds of the run; without the tests if they were not measured."""
        return None if self.training is None else self.training + (self.testing or 0.0)

    @property
    def disk(self) -> int | None:
        """Bytes of the run's folder at the end."""
        kept = [step.kept for step in self.steps if step.kept is not None]
        return sum(kept) if len(kept) == len(self.steps) else None

    @property
    def flops(self) -> float | None:
        """Floating point operations of all updates."""
        return total([step.flops and step.flops * self.images_per_update * step.updates for step in self.steps])


def total(values: Sequence[float | None]) -> float | None:
    """The sum, or None if a value is.

    Example:
        >>> total([1.0, 2.0]), total([1.0, None])
        (3.0, None)
    """
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def estimate(
    recipe: Recipe,
    *,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    throughput: float | None = None,
    measured: Probe | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Estimate the cost of a run. Nothing is left on disk.

    Images, updates and parameters are exact. Time, memory and disk come from a probe: a few updates of the first two steps
    with the recipe's data and network, with random weights, on one device. All later steps are taken to be as fast as step
    1, and ranks not to wait for each other.

    Args:
        device: of the probe; default: that of the recipe.
        throughput: training images per second of all ranks, in place of a probe.
        measured: the probe of a recipe that is as fast, in place of another one.
        progress: called with (done, total) during the presence scan.
        clock: seconds.

    Raises:
        ContsegError: the recipe cannot be trained here.
    """
    ranks = recipe.training.ranks
    with tempfile.TemporaryDirectory(prefix="contseg-") as folder:
        alone = _on_one_rank(recipe, "cpu" if throughput is not None else device)  # which needs no device
        run = start_run(alone, Path(folder) / "run")
        job = make_job(alone, run.folder, progress=progress)
        first_step = f"{job.first_step_key()} {recipe.backbone_weights}"
        if throughput is None and measured is None:
            measured = probe(job, ranks, clock)
        return _cost(job, ranks, measured, throughput, first_step)


def _on_one_rank(recipe: Recipe, device: str | None) -> Recipe:
    """The recipe on one rank, with random weights that keep a deep untrained network finite, as in a dry run."""
    training = with_changes(recipe.training, devices=1, nodes=1, loggers=[])
    if device is not None:
        training = with_changes(training, accelerator=device)
    network = recipe.network
    if isinstance(network.backbone, ResNetOptions):
        network = network.changed(backbone={"initialisation": "he"})
    return with_changes(recipe, training=training, network=network, backbone_weights=None)


def _cost(job: Job, ranks: int, measured: Probe | None, throughput: float | None, first_step: str) -> Cost:
    parameters, steps = _parameters(job), list[StepCost]()
    for index, count in enumerate(parameters):
        cost = _exact(job, index, count)
        if measured is not None:
            like = min(index, len(measured.steps) - 1)
            own = measured.steps[like].parameters - parameters[like]  # a method may replace the classifier
            cost = replace(_estimated(cost, job, measured.steps[like], ranks), parameters=count + own)
        elif throughput is not None:
            cost = replace(cost, training=cost.updates * job.training.batch * job.training.accumulate / throughput)
        steps.append(cost)
    return Cost(
        steps=tuple(steps),
        first_step=first_step,
        images_per_update=job.training.batch * job.training.accumulate,
        memory=measured.memory if measured else None,
        working=3 * max(step.state for step in measured.steps) if measured else None,  # written next to the last two
        probe=measured,
    )


def _exact(job: Job, index: int, parameters: int) -> StepCost:
    """What is known of a step without a measurement."""
    step = job.scenario[index]
    updates = job.updates_of(step)
    return StepCost(
        index=index,
        images=drawn_images(step, job.exemplar_share),
        epochs=job.training.epochs_of(index) if updates else 0,
        updates=updates,
        tests=len(step.test),
        parameters=parameters,
    )


def _estimated(cost: StepCost, job: Job, measured: Measured, ranks: int) -> StepCost:
    """The cost with times and sizes from a probe."""
    step, training = job.scenario[cost.index], job.training
    tests, held_out = (_batches(job, samples, ranks) for samples in (step.test, step.val))
    validating = held_out * measured.test * cost.epochs if training.keep == "best" else 0.0
    share = len(step.train) / max(measured.images, 1) / ranks
    calls = [
        seconds * (max(share, 1.0) if called else 1.0)
        for seconds, called in (
            (measured.before, _overrides(job.method, "before_step")),
            (measured.after, _overrides(job.method, "after_step")),
        )
    ]
    images = max(1, training.batch // ranks) * training.accumulate
    return replace(
        cost,
        flops=None if measured.flops is None else measured.flops / images,
        training=cost.updates * measured.update + cost.epochs * measured.epoch + validating + sum(calls),
        testing=tests * measured.test + measured.once,
        kept=measured.kept,
    )


def _overrides(method: Method, call: str) -> bool:
    return getattr(type(method), call) is not getattr(Method, call)


def _batches(job: Job, samples: Samples, ranks: int) -> int:
    """Batches of a test on one rank."""
    batch = max(1, job.training.batch // ranks)  # the time of a batch was measured with this size
    return len(evaluation_draws(len(samples), batch, job.evaluation_pipeline, Shard(0, ranks)))


def _parameters(job: Job) -> list[int]:
    """Parameters of the network after each step."""
    widths, counts = first_widths(job.network, job.scenario[0].seen_count), []
    with torch.device("meta"):  # shapes only: no memory, no random numbers
        for step in job.scenario:
            widths += [step.new_count] if step.index and step.new_count else []
            counts.append(sum(parameter.numel() for parameter in make_segmenter(job.network, widths).parameters()))
    return counts

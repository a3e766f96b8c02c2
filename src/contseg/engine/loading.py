"""Batches of a step: the choice, order and augmentation of samples, independent of the number of workers and ranks."""

import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from contseg.data.pipelines.augment import Pipeline, WholeImage
from contseg.engine.devices import has_little_shared_memory, workers_of
from contseg.engine.options import TrainingOptions
from contseg.engine.randomness import ORDER, SAMPLE, data_generator
from contseg.errors import ContsegError
from contseg.scenarios.batch import Batch, Pool, Samples
from contseg.scenarios.step import Step

PATIENCE = 300.0
"""Seconds to wait for a batch from a worker."""
LAST_READS = 5.0
"""Seconds that a worker continues after a signal, so that the current batch is not lost."""
THRESHOLD_PASS = 1_000_000
"""The epoch number of a pass outside training, such as PLOP's threshold pass."""


@dataclass(frozen=True)
class Draw:
    """A sample to cut; its augmentation is seeded by (seed, step, epoch, position)."""

    epoch: int
    position: int
    index: int


@dataclass(frozen=True)
class Shard:
    """One of `count` ranks."""

    rank: int = 0
    count: int = 1


def drawn_images(step: Step, share: float) -> int:
    """Number of images that an epoch of a step draws from: its own, and exemplars unless they replace a part of each batch.

    Args:
        share: share of every batch that exemplars replace.
    """
    return len(step.train) + (0 if share else sum(map(len, step.memory)))


def updates_per_epoch(samples: int, options: TrainingOptions) -> int:
    """Updates per epoch: whole batches only, and at least one (a step smaller than a batch repeats its images)."""
    return max(1, samples // (options.batch * options.accumulate))


def epoch_draws(
    samples: int,
    options: TrainingOptions,
    step: int,
    epoch: int,
    shard: Shard = Shard(),
    exemplars: int = 0,
    share: float = 0.0,
) -> list[list[Draw]]:
    """The batches of an epoch for a rank.

    A permutation seeded by (seed, step, epoch) is cut into global batches, of which each rank takes a contiguous part.

    Args:
        samples: number of samples to draw from.
        exemplars: number of further samples, with the indices after these. They replace `share` of every batch (rounded
            down) at random positions, in random order; all are used before one is repeated.

    Example:
        >>> batches = epoch_draws(5, TrainingOptions(batch=2), step=0, epoch=0)
        >>> len(batches), len({draw.index for batch in batches for draw in batch})
        (2, 4)
    """
    rng = data_generator(ORDER, options.seed, step, epoch)
    passes = updates_per_epoch(samples, options) * options.accumulate
    chosen = np.resize(rng.permutation(samples), (passes, options.batch))
    replaced = int(options.batch * share) if exemplars else 0
    if replaced:
        rounds = -(-passes * replaced // exemplars)
        remembered = np.concatenate([rng.permutation(exemplars) for _ in range(rounds)]) + samples
        for batch, ones in zip(chosen, np.resize(remembered, (passes, replaced)), strict=True):
            batch[rng.permutation(options.batch)[:replaced]] = ones
    part = options.batch // shard.count
    mine = range(shard.rank * part, (shard.rank + 1) * part)
    return [
        [Draw(epoch, number * options.batch + place, int(batch[place])) for place in mine]
        for number, batch in enumerate(chosen)
    ]


@dataclass(frozen=True)
class _Cut:
    """A cut sample, or the error message if its files cannot be read."""

    image: Tensor | None
    labels: np.ndarray | None
    name: str
    annotated: np.ndarray
    problem: str | None = None


class _CutSamples(Dataset):
    """Samples cut by a pipeline. Workers return errors as values, so that the user sees one message, not a traceback."""

    def __init__(self, samples: Pool, pipeline: Pipeline, seed: int, step: int):
        self.samples, self.pipeline, self.seed, self.step = samples, pipeline, seed, step

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> _Cut:
        samples, index = self.samples.locate(draw.index)
        name = samples.names[index]
        try:
            image, layers = samples.read(index)
        except ContsegError as error:
            return _Cut(None, None, name, samples.annotated, str(error))
        rng = data_generator(SAMPLE, self.seed, self.step, draw.epoch, draw.position)
        try:
            pixels, layers = self.pipeline(image, layers, rng)
        except ContsegError as error:
            place = samples.dataset.image_path(name)
            return _Cut(None, None, name, samples.annotated, f"{place}: {error}")
        return _Cut(pixels, samples.labels(layers), name, samples.annotated)

    def pickled(self, cuts: list[_Cut]) -> bytes:
        """`stack` as bytes, which pass through a pipe and not through shared memory."""
        return pickle.dumps(self.stack(cuts))

    def stack(self, cuts: list[_Cut]) -> Batch | str:
        """A batch, or the first error message."""
        images, labels = [], []
        for cut in cuts:
            if cut.problem or cut.image is None or cut.labels is None:
                return str(cut.problem)
            images.append(cut.image)
            labels.append(cut.labels)
        if len({ids.shape for ids in labels}) > 1:
            return (
                "data.crop: a rectangular crop is rotated with its image, and all crops of a batch must have the same size;"
                " use a square crop (with head fcn, training.batch=1 also works)"
            )
        return Batch.stack(images, labels, [cut.name for cut in cuts], [cut.annotated for cut in cuts])


class Batches:
    """Batches of one pass over samples, on a device; can be iterated repeatedly.

    Workers pass batches through shared memory. If /dev/shm is too small for them, they use pipes, which are slower.

    Raises (iterating):
        ContsegError: a file cannot be read, or a worker ended or takes more than `PATIENCE` for a batch.
    """

    def __init__(
        self,
        samples: Samples | Pool,
        pipeline: Pipeline,
        draws: list[list[Draw]],
        *,
        seed: int,
        step: int,
        device: torch.device,
        workers: int = 0,
    ):
        self._cuts = _CutSamples(samples if isinstance(samples, Pool) else Pool((samples,)), pipeline, seed, step)
        self._draws, self._device, self._workers = draws, device, workers

    def __len__(self) -> int:
        return len(self._draws)

    def __iter__(self) -> Generator[Batch, None, None]:
        piped = self._workers > 0 and has_little_shared_memory()
        loader = DataLoader(
            self._cuts,
            batch_sampler=self._draws,
            collate_fn=self._cuts.pickled if piped else self._cuts.stack,
            num_workers=self._workers,
            worker_init_fn=_outlive_signals,
            pin_memory=False,
            timeout=PATIENCE if self._workers else 0,
        )
        number = 0
        try:
            for loaded in loader:
                batch = pickle.loads(loaded) if piped else loaded
                if isinstance(batch, str):
                    raise ContsegError(batch)
                yield batch.to(self._device)
                number += 1
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            raise ContsegError(self._no_batch(number, error)) from None

    def _no_batch(self, number: int, error: RuntimeError) -> str:
        """The error for a worker that was killed, or that takes too long."""
        samples = (self._cuts.samples.locate(draw.index) for draw in self._draws[number])
        paths = ", ".join(str(pool.dataset.image_path(pool.names[index])) for pool, index in samples)
        reason = " ".join(str(error).split())[:160]
        return (
            f"training.workers: no batch came from the workers ({reason}); check the images {paths}, the free memory and"
            " /dev/shm, or set training.workers=0"
        )


class StepBatches:
    """The training batches of a step, from its own images and the exemplars of earlier steps.

    Args:
        share: share of every batch that exemplars replace; 0 draws batches from own images and exemplars together.

    Attributes:
        updates: updates per epoch.
        held: makes the batches of draws from features that were computed before; None reads images.
    """

    held: Callable[[list[list[Draw]]], Batches] | None = None

    def __init__(
        self, step: Step, pipeline: Pipeline, options: TrainingOptions, share: float, device: torch.device, shard: Shard
    ):
        self._step, self._pipeline, self._options, self._share = step, pipeline, options, share
        self._device, self._shard = device, shard
        self._pool = Pool((step.train, *step.memory))
        self.updates = updates_per_epoch(drawn_images(step, share), options)

    def epoch(self, number: int, passes_done: int = 0) -> Batches:
        """The batches of an epoch, without those that an interrupted attempt has used."""
        return self._batches(self._pool, number, passes_done)

    def own_images(self, epoch: int) -> Batches:
        """Batches of the step's own images, drawn as in an epoch."""
        return self._batches(Pool((self._step.train,)), epoch)

    def _batches(self, pool: Pool, epoch: int, passes_done: int = 0) -> Batches:
        step, options = self._step.index, self._options
        own = len(self._step.train) if self._share else len(pool)
        draws = epoch_draws(own, options, step, epoch, self._shard, len(pool) - own, self._share)[passes_done:]
        if self.held is not None and epoch != THRESHOLD_PASS:  # a pass outside training may read the images
            return self.held(draws)
        workers = workers_of(options)
        return Batches(pool, self._pipeline, draws, seed=options.seed, step=step, device=self._device, workers=workers)


def _outlive_signals(worker: int) -> None:
    """Keep a worker alive after a signal to all processes, while its parent finishes the current update and saves.

    The parent then ends the worker; if the parent is gone, the worker exits on its own.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # the terminal sends Ctrl-C to the process group of the command

    def later(number: int, frame: object) -> None:
        timer = threading.Timer(LAST_READS, os._exit, (0,))  # another code would be reported as a crash
        timer.daemon = True
        timer.start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, later)


def evaluation_draws(samples: int, batch: int, pipeline: Pipeline, shard: Shard = Shard()) -> list[list[Draw]]:
    """Every sample exactly once over all ranks; batches of one if images keep their own sizes.

    Example:
        >>> [len(batch) for batch in evaluation_draws(5, 2, WholeImage(), Shard(1, 2))]
        [1, 1]
    """
    size = 1 if isinstance(pipeline, WholeImage) else batch
    mine = [Draw(0, index, index) for index in range(shard.rank, samples, shard.count)]
    return [mine[start : start + size] for start in range(0, len(mine), size)]


def evaluation_batches(
    samples: Samples, pipeline: Pipeline, options: TrainingOptions, device: torch.device, shard: Shard = Shard()
) -> Batches:
    """One pass over all samples, see `evaluation_draws`."""
    draws = evaluation_draws(len(samples), options.batch, pipeline, shard)
    return Batches(samples, pipeline, draws, seed=0, step=0, device=device, workers=workers_of(options))

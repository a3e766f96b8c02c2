"""Batches of a step: the choice, order and augmentation of samples, independent of the number of workers and ranks."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from contseg.data.pipelines.augment import Pipeline, WholeImage
from contseg.engine.devices import workers_of
from contseg.engine.handover import handed_over
from contseg.engine.options import TrainingOptions
from contseg.engine.randomness import ORDER, data_generator
from contseg.engine.workers import CutSamples, Draw, Reader
from contseg.scenarios.batch import Batch, Pool, Samples
from contseg.scenarios.step import Step

__all__ = [
    "THRESHOLD_PASS", "Batches", "Draw", "Shard", "StepBatches", "drawn_images", "epoch_draws", "evaluation_batches",
    "evaluation_draws", "updates_per_epoch",
]  # fmt: skip

THRESHOLD_PASS = 1_000_000
"""The epoch number of a pass outside training, such as PLOP's threshold pass."""


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


class Batches:
    """Batches of one pass over samples, on a device; can be iterated repeatedly.

    Args:
        stay: workers stay for the next pass, until `close`; otherwise each pass starts its own.

    Raises (iterating):
        ContsegError: a file cannot be read, or a worker ended or takes too long for a batch.
    """

    def __init__(
        self,
        samples: Samples | Pool,
        pipeline: Pipeline,
        draws: Iterable[list[Draw]],
        *,
        seed: int,
        step: int,
        device: torch.device,
        workers: int = 0,
        stay: bool = False,
    ):
        self._cuts = CutSamples(samples if isinstance(samples, Pool) else Pool((samples,)), pipeline, seed, step)
        self._draws, self._device, self._workers = draws, torch.device(device), workers
        self._stay = stay
        self._idle: Reader | None = None

    def __len__(self) -> int:
        return len(self._draws)  # type: ignore[arg-type]

    def __iter__(self) -> Generator[Batch, None, None]:
        """A pass; if it is closed or fails before its end, its workers end."""
        reader = self._idle or Reader(self._cuts, self._workers, pinned=self._device.type == "cuda")
        self._idle = None  # a pass within this pass has workers of its own
        yield from handed_over(reader.read(self._draws), self._device)
        self._idle = reader if self._stay else None

    def close(self) -> None:
        """End the workers that stayed."""
        self._idle = None


class StepBatches:
    """The training batches of a step, from its own images and the exemplars of earlier steps.

    The epochs of a step are one stream, so that workers are started once and read ahead into the next epoch.

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
        self._stream: Generator[Batch, None, None] | None = None
        self._next = (0, 0)

    def epoch(self, number: int, passes_done: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without those that an interrupted attempt has used."""
        if self.held is not None:
            yield from self.held(self._draws(self._pool, number)[passes_done:])
            return
        passes = self.updates * self._options.accumulate
        if self._stream is None or self._next != (number, passes_done):
            self.close()
            draws = self._draws_from(number, passes_done)
            self._stream = iter(self._batches(self._pool, draws))
        for batch in islice(self._stream, passes - passes_done):
            passes_done += 1
            self._next = (number + passes_done // passes, passes_done % passes)
            yield batch

    def close(self) -> None:
        """End the workers of the epochs."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def own_images(self, epoch: int) -> Batches:
        """Batches of the step's own images, drawn as in an epoch."""
        pool = Pool((self._step.train,))
        return self._batches(pool, self._draws(pool, epoch))

    def _draws_from(self, epoch: int, passes_done: int) -> Iterator[list[Draw]]:
        """The draws of an epoch without its first ones, and of all later epochs of the step."""
        yield from self._draws(self._pool, epoch)[passes_done:]
        for later in range(epoch + 1, self._options.epochs_of(self._step.index)):
            yield from self._draws(self._pool, later)

    def _draws(self, pool: Pool, epoch: int) -> list[list[Draw]]:
        own = len(self._step.train) if self._share else len(pool)
        return epoch_draws(own, self._options, self._step.index, epoch, self._shard, len(pool) - own, self._share)

    def _batches(self, pool: Pool, draws: Iterable[list[Draw]]) -> Batches:
        seed, step, workers = self._options.seed, self._step.index, workers_of(self._options)
        return Batches(pool, self._pipeline, draws, seed=seed, step=step, device=self._device, workers=workers)


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
    samples: Samples,
    pipeline: Pipeline,
    options: TrainingOptions,
    device: torch.device,
    shard: Shard = Shard(),
    stay: bool = False,
) -> Batches:
    """One pass over all samples, see `evaluation_draws`.

    Args:
        stay: see `Batches`.
    """
    draws = evaluation_draws(len(samples), options.batch, pipeline, shard)
    return Batches(samples, pipeline, draws, seed=0, step=0, device=device, workers=workers_of(options), stay=stay)

"""Batches of a step: which samples, in which order, cut how - the same for any number of workers and ranks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from contseg.data.augment import Pipeline, WholeImage
from contseg.engine.options import TrainingOptions
from contseg.engine.randomness import ORDER, SAMPLE, data_generator
from contseg.errors import ContsegError
from contseg.scenarios.batch import Batch, Samples

THRESHOLD_PASS = 1_000_000
"""The epoch number of a pass that is no epoch of training, such as PLOP's threshold pass."""


@dataclass(frozen=True)
class Draw:
    """One sample to be cut: the generator of its augmentation follows from (seed, step, epoch, position)."""

    epoch: int
    position: int
    index: int


@dataclass(frozen=True)
class Shard:
    """Which of how many ranks."""

    rank: int = 0
    count: int = 1


def updates_per_epoch(samples: int, options: TrainingOptions) -> int:
    """Updates of one epoch: whole batches only, and one at least (a step smaller than a batch repeats its images)."""
    return max(1, samples // (options.batch * options.accumulate))


def epoch_draws(samples: int, options: TrainingOptions, step: int, epoch: int, shard: Shard = Shard()) -> list[list[Draw]]:
    """The batches of one epoch for one rank: a permutation from (seed, step, epoch), cut into global batches, of which
    each rank takes its contiguous part.

    Example:
        >>> batches = epoch_draws(5, TrainingOptions(batch=2), step=0, epoch=0)
        >>> len(batches), len({draw.index for batch in batches for draw in batch})
        (2, 4)
    """
    order = data_generator(ORDER, options.seed, step, epoch).permutation(samples)
    passes = updates_per_epoch(samples, options) * options.accumulate
    part = options.batch // shard.count
    return [
        [
            Draw(epoch, position, int(order[position % samples]))
            for position in range(
                number * options.batch + shard.rank * part, number * options.batch + (shard.rank + 1) * part
            )
        ]
        for number in range(passes)
    ]


@dataclass(frozen=True)
class _Cut:
    """A sample ready to be stacked, or the message of what is wrong with its files."""

    image: Tensor | None
    labels: np.ndarray | None
    name: str
    problem: str | None = None


class _CutSamples(Dataset):
    """Samples cut by a pipeline. Errors travel as values, so that a worker's traceback never stands before the message."""

    def __init__(self, samples: Samples, pipeline: Pipeline, seed: int, step: int):
        self.samples, self.pipeline, self.seed, self.step = samples, pipeline, seed, step

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> _Cut:
        name = self.samples.names[draw.index]
        try:
            image, mask = self.samples.read(draw.index)
        except ContsegError as error:
            return _Cut(None, None, name, str(error))
        rng = data_generator(SAMPLE, self.seed, self.step, draw.epoch, draw.position)
        pixels, ids = self.pipeline(image, mask, rng)
        return _Cut(pixels, self.samples.lookup[ids], name)

    def stack(self, cuts: list[_Cut]) -> Batch | str:
        """A batch, or the first problem."""
        images, labels = [], []
        for cut in cuts:
            if cut.problem or cut.image is None or cut.labels is None:
                return str(cut.problem)
            images.append(cut.image)
            labels.append(cut.labels)
        annotated = [self.samples.annotated] * len(cuts)
        return Batch.stack(images, labels, [cut.name for cut in cuts], annotated)


class Batches:
    """Batches of one pass over samples, on a device; iterate as often as you like.

    Raises (iterating):
        ContsegError: a file cannot be read.
    """

    def __init__(
        self,
        samples: Samples,
        pipeline: Pipeline,
        draws: list[list[Draw]],
        *,
        seed: int,
        step: int,
        device: torch.device,
        workers: int = 0,
    ):
        self._cuts = _CutSamples(samples, pipeline, seed, step)
        self._draws, self._device, self._workers = draws, device, workers

    def __len__(self) -> int:
        return len(self._draws)

    def __iter__(self) -> Iterator[Batch]:
        loader = DataLoader(
            self._cuts,
            batch_sampler=self._draws,
            collate_fn=self._cuts.stack,
            num_workers=self._workers,
            pin_memory=False,
        )
        for batch in loader:
            if isinstance(batch, str):
                raise ContsegError(batch)
            yield batch.to(self._device)


def evaluation_draws(samples: int, batch: int, pipeline: Pipeline, shard: Shard = Shard()) -> list[list[Draw]]:
    """Every sample once over all ranks, none twice; batches of one where images keep their own sizes.

    Example:
        >>> [len(batch) for batch in evaluation_draws(5, 2, WholeImage(), Shard(1, 2))]
        [1, 1]
    """
    size = 1 if isinstance(pipeline, WholeImage) else batch
    mine = [Draw(0, index, index) for index in range(shard.rank, samples, shard.count)]
    return [mine[start : start + size] for start in range(0, len(mine), size)]

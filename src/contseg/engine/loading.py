"""Batches of a step: which samples, in which order, cut how - the same for any number of workers and ranks."""

import os
import signal
import threading
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from contseg.data.pipelines.augment import Pipeline, WholeImage
from contseg.data.recoding import look_up
from contseg.engine.options import TrainingOptions
from contseg.engine.randomness import ORDER, SAMPLE, data_generator
from contseg.errors import ContsegError
from contseg.scenarios.batch import Batch, Pool, Samples

LAST_READS = 5.0
"""Seconds that a reader has after SIGTERM, so that the batch at hand is not lost."""
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


def epoch_draws(
    samples: int,
    options: TrainingOptions,
    step: int,
    epoch: int,
    shard: Shard = Shard(),
    exemplars: int = 0,
    share: float = 0.0,
) -> list[list[Draw]]:
    """The batches of one epoch for one rank: a permutation from (seed, step, epoch), cut into global batches, of which
    each rank takes its contiguous part.

    Args:
        samples: how many there are to draw from.
        exemplars: further samples, numbered after these, that replace `share` of every batch (rounded down) at random
            places; they too come in shuffled order, all of them before any comes again.

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
    """A sample ready to be stacked, or the message of what is wrong with its files."""

    image: Tensor | None
    labels: np.ndarray | None
    name: str
    annotated: np.ndarray
    problem: str | None = None


class _CutSamples(Dataset):
    """Samples cut by a pipeline. Errors travel as values, so that a worker's traceback never stands before the message."""

    def __init__(self, samples: Pool, pipeline: Pipeline, seed: int, step: int):
        self.samples, self.pipeline, self.seed, self.step = samples, pipeline, seed, step

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> _Cut:
        samples, index = self.samples.locate(draw.index)
        name = samples.names[index]
        try:
            image, mask = samples.read(index)
        except ContsegError as error:
            return _Cut(None, None, name, samples.annotated, str(error))
        rng = data_generator(SAMPLE, self.seed, self.step, draw.epoch, draw.position)
        try:
            pixels, ids = self.pipeline(image, mask, rng)
        except ContsegError as error:
            place = samples.dataset.image_path(name)
            return _Cut(None, None, name, samples.annotated, f"{place}: {error}")
        return _Cut(pixels, look_up(samples.lookup, ids), name, samples.annotated)

    def stack(self, cuts: list[_Cut]) -> Batch | str:
        """A batch, or the first problem."""
        images, labels = [], []
        for cut in cuts:
            if cut.problem or cut.image is None or cut.labels is None:
                return str(cut.problem)
            images.append(cut.image)
            labels.append(cut.labels)
        if len({ids.shape for ids in labels}) > 1:
            return (
                "data.crop: a rectangular crop is turned as its image is, and all crops of a batch must have one size;"
                " use a square crop (with head fcn, training.batch=1 will do)"
            )
        return Batch.stack(images, labels, [cut.name for cut in cuts], [cut.annotated for cut in cuts])


class Batches:
    """Batches of one pass over samples, on a device; iterate as often as you like.

    Raises (iterating):
        ContsegError: a file cannot be read.
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
        loader = DataLoader(
            self._cuts,
            batch_sampler=self._draws,
            collate_fn=self._cuts.stack,
            num_workers=self._workers,
            worker_init_fn=_outlive_signals,
            pin_memory=False,
        )
        for batch in loader:
            if isinstance(batch, str):
                raise ContsegError(batch)
            yield batch.to(self._device)


def _outlive_signals(worker: int) -> None:
    """Let a reader go on while its parent makes the update at hand and saves, though a signal was sent to all processes.

    The parent ends it, or it ends on its own soon after.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C of the terminal goes to the group of the command

    def later(number: int, frame: object) -> None:
        timer = threading.Timer(LAST_READS, os._exit, (0,))  # another code would be reported as a crash
        timer.daemon = True
        timer.start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, later)


def evaluation_draws(samples: int, batch: int, pipeline: Pipeline, shard: Shard = Shard()) -> list[list[Draw]]:
    """Every sample once over all ranks, none twice; batches of one where images keep their own sizes.

    Example:
        >>> [len(batch) for batch in evaluation_draws(5, 2, WholeImage(), Shard(1, 2))]
        [1, 1]
    """
    size = 1 if isinstance(pipeline, WholeImage) else batch
    mine = [Draw(0, index, index) for index in range(shard.rank, samples, shard.count)]
    return [mine[start : start + size] for start in range(0, len(mine), size)]

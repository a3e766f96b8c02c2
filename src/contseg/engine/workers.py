"""Worker processes that read and cut samples; they outlast a pass over the data, as a step may have few updates."""

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from contseg.data.pipelines.augment import Pipeline
from contseg.engine.devices import has_little_shared_memory
from contseg.engine.randomness import SAMPLE, data_generator
from contseg.errors import ContsegError
from contseg.scenarios.batch import Batch, Pool

PATIENCE = 300.0
"""Seconds to wait for a batch from a worker."""
LAST_READS = 5.0
"""Seconds that a worker continues after a signal, so that the current batch is not lost."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A sample to cut; its augmentation is seeded by (seed, step, epoch, position)."""

    epoch: int
    position: int
    index: int


@dataclass(frozen=True)
class _Cut:
    """A cut sample, or the error message if its files cannot be read."""

    image: Tensor | None
    labels: np.ndarray | None
    name: str
    annotated: np.ndarray
    problem: str | None = None
    instances: np.ndarray | None = None


class CutSamples(Dataset):
    """Samples cut by a pipeline. Workers return errors as values, so that the user sees one message, not a traceback.

    Args:
        seed, step: seed the augmentation, together with the epoch and the position of a draw.
    """

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
        labels = samples.labels(layers)
        return _Cut(pixels, labels, name, samples.annotated, instances=samples.instances(layers, labels))

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
        names, annotated = [cut.name for cut in cuts], [cut.annotated for cut in cuts]
        return Batch.stack(images, labels, names, annotated, [cut.instances for cut in cuts])

    def path(self, draw: Draw) -> str:
        """The image file of a draw, for messages."""
        samples, index = self.samples.locate(draw.index)
        return str(samples.dataset.image_path(samples.names[index]))


class _Upcoming:
    """What is read next: a batch sampler whose draws change from pass to pass.

    Attributes:
        ahead: draws of the batches that were handed to the workers and have not come back, oldest first.
    """

    def __init__(self) -> None:
        self.draws: Iterable[list[Draw]] = ()
        self.ahead: deque[list[Draw]] = deque()

    def __iter__(self) -> Iterator[list[Draw]]:
        for draws in self.draws:
            self.ahead.append(draws)
            yield draws


class Reader:
    """Reads batches in worker processes, which stay for the next pass; with `workers=0`, in this process.

    Workers pass batches through shared memory. If /dev/shm is too small for them, they use pipes, which are slower. They end
    with the last reference to the reader.

    Args:
        pinned: batches are copied to pinned memory, from which a GPU copies without waiting.
    """

    def __init__(self, cuts: CutSamples, workers: int, pinned: bool):
        self._cuts, self._pinned, self._upcoming = cuts, pinned, _Upcoming()
        self._piped = workers > 0 and has_little_shared_memory()
        self._loader = DataLoader(
            cuts,
            batch_sampler=self._upcoming,
            collate_fn=cuts.pickled if self._piped else cuts.stack,
            num_workers=workers,
            worker_init_fn=_outlive_signals,
            pin_memory=pinned and not self._piped,
            timeout=PATIENCE if workers else 0,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # PyTorch seeds its workers; ours do not use it
        )

    def read(self, draws: Iterable[list[Draw]]) -> Iterator[Batch]:
        """The batches of these draws, in their order. A pass that was left before its end is dropped by the next.

        Raises:
            ContsegError: a file cannot be read, or a worker ended or takes more than `PATIENCE` for a batch.
        """
        self._upcoming.draws = draws
        self._upcoming.ahead.clear()
        try:
            for loaded in self._loader:
                self._upcoming.ahead.popleft()
                batch = pickle.loads(loaded) if self._piped else loaded
                if isinstance(batch, str):
                    raise ContsegError(batch)
                yield batch.pin_memory() if self._pinned and self._piped else batch
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            raise ContsegError(self._no_batch(error)) from None

    def _no_batch(self, error: RuntimeError) -> str:
        """The error for a worker that was killed, or that takes too long."""
        paths = ", ".join(map(self._cuts.path, self._upcoming.ahead[0] if self._upcoming.ahead else ()))
        reason = " ".join(str(error).split())[:160]
        return (
            f"training.workers: no batch came from the workers ({reason}); check the images {paths}, the free memory and"
            " /dev/shm, or set training.workers=0"
        )


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

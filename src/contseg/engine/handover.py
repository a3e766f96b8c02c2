"""The way of a batch to the device: the next one is copied while the present one is computed."""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from contseg.errors import ContsegError
from contseg.scenarios.batch import Batch


class CopyStream(Protocol):
    """A queue of a device next to the one that computes."""

    def entered(self) -> AbstractContextManager[object]:
        """Inside the block, work of this thread is put into this queue."""

    def awaited(self, batch: Batch) -> None:
        """Let computing wait for this queue, and keep the memory of `batch`, which it filled, until it has been used."""


class CudaCopyStream:
    """A side stream of a GPU."""

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)

    def entered(self) -> AbstractContextManager[object]:
        """Put work into the side stream."""
        return torch.cuda.stream(self._stream)

    def awaited(self, batch: Batch) -> None:
        """Let the current stream, not this process, wait for the side stream."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        batch.record_stream(current)


class Prefetch:
    """Batches on a device, each copied by a side stream before the one before it is computed.

    Args:
        batches: in pinned memory; otherwise each copy waits for its end.
        device: where they are copied to.
        stream: copies them.

    Example:
        >>> from contextlib import nullcontext
        >>> from types import SimpleNamespace
        >>> stream = SimpleNamespace(entered=nullcontext, awaited=lambda batch: print("computed:", batch.names))
        >>> empty = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
        >>> batches = [Batch(empty, empty[:, 0], (name,), empty[0, :1, 0] > 0) for name in "ab"]
        >>> [batch.names for batch in Prefetch(iter(batches), torch.device("cpu"), stream)]
        computed: ('a',)
        computed: ('b',)
        [('a',), ('b',)]
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device, stream: CopyStream):
        self._batches, self._device, self._stream = batches, device, stream

    def __iter__(self) -> Generator[Batch, None, None]:
        """The batches in their order; the error of one is raised in its place, after those before it."""
        present = self._copied()
        while present is not None:
            if isinstance(present, ContsegError):
                raise present
            self._stream.awaited(present)
            # its copy is queued before the present batch is computed, so that both run at the same time
            coming = self._copied()
            yield present
            present = coming

    def _copied(self) -> Batch | ContsegError | None:
        """The next batch, whose copy has begun; None after the last."""
        try:
            batch = next(self._batches, None)
        except ContsegError as error:
            return error
        if batch is None:
            return None
        with self._stream.entered():
            return batch.to(self._device)


def handed_over(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on a device: on a GPU copied ahead (`Prefetch`), on a CPU as they come."""
    if device.type == "cuda":
        return iter(Prefetch(batches, device, CudaCopyStream(device)))
    return (batch.to(device) for batch in batches)

"""Several passes over the same batches: features are computed in the first one and kept for the others."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from contseg.engine.records import RecordReader, RecordWriter, bytes_of, require_space
from contseg.errors import ContsegError
from contseg.models.freezing import evaluating
from contseg.models.held import start_points
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch, Held

LABELS, ANNOTATED = "labels", "annotated"


class Remembered:
    """Batches whose first complete pass writes the features of a segmenter in evaluation mode to a file.

    Later passes read them: neither files of images nor the network below the features are needed. The segmenter must not
    change in the meantime.

    Args:
        batches: the same in every pass.
        taps: features that are read, besides the logits.
        path: of the file.
        half: whether features are kept in bf16.

    Raises (iterating):
        ContsegError: the disk has no room.
    """

    def __init__(self, batches: Iterable[Batch], segmenter: Segmenter, taps: Sequence[str], path: Path, half: bool = False):
        self._batches, self._segmenter, self._taps = batches, segmenter, tuple(taps)
        self._path, self._half = path, half
        self._names: list[tuple[str, ...]] = []
        self._types: dict[str, torch.dtype] = {}
        self._file: RecordReader | None = None

    def __len__(self) -> int:
        assert isinstance(self._batches, Sized)
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return self._first_pass() if self._file is None else self._later_pass(self._file)

    def _first_pass(self) -> Iterator[Batch]:
        self._names = []
        with RecordWriter(self._path) as writer:
            for batch in self._batches:
                features = self._features(batch)
                self._types = {name: value.dtype for name, value in features.items()}
                kept = {name: value.bfloat16() for name, value in features.items()} if self._half else features
                record = kept | {LABELS: batch.labels.to(torch.uint8), ANNOTATED: batch.annotated.to(torch.uint8)}
                if not self._names:
                    self._require_space(bytes_of(record))
                writer.append(record)
                self._names.append(batch.names)
                yield replace(batch, held=Held(self._widened(kept)))
        self._file = RecordReader(self._path)

    def _later_pass(self, file: RecordReader) -> Iterator[Batch]:
        device = self._segmenter.mean.device
        for number, names in enumerate(self._names):
            record = file[number]
            labels, annotated = record.pop(LABELS), record.pop(ANNOTATED)
            images = torch.empty(len(names), 3, *labels.shape[1:], dtype=torch.uint8, device="meta")
            yield Batch(images, labels, names, annotated.bool(), held=Held(self._widened(record))).to(device)

    def _widened(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies of features in the types that they were computed in."""
        return {name: value.to(self._types[name], copy=True) for name, value in features.items()}

    def _features(self, batch: Batch) -> dict[str, torch.Tensor]:
        segmenter = self._segmenter
        with evaluating(segmenter):
            points = start_points(segmenter, self._taps, fixed=True)
            return segmenter.features_at(segmenter.normalise(batch.images), points)

    def _require_space(self, each: int) -> None:
        what = f"training.features: features of {len(self)} batches"
        require_space(self._path.parent, each * len(self), what, "free some space, or set training.features=live")


@contextmanager
def remembered(
    batches: Iterable[Batch], segmenter: Segmenter, taps: Sequence[str], *, path: Path, half: bool
) -> Iterator[Iterable[Batch]]:
    """`Remembered` batches, whose file is deleted at the end of the block; the same batches if nothing can be kept."""
    try:
        with evaluating(segmenter):
            start_points(segmenter, taps, fixed=True)
    except ContsegError:  # a network that cannot start from features
        yield batches
        return
    try:
        yield Remembered(batches, segmenter, taps, path, half)
    finally:
        for one in (path, path.with_name(f"{path.name}.json")):
            one.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()

"""Batches of features that were computed before, in place of images."""

import json
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contseg.engine.loading import Batches, Draw
from contseg.engine.randomness import SAMPLE, data_generator
from contseg.engine.records import RecordReader
from contseg.scenarios.batch import Batch, Held, Pool

COMPLETE = "complete.json"
"""Written last: what the files contain."""
LABELS, TEACHER = "labels", "teacher."
"""Names in a record: the labels, and the beginning of the names of what only the teacher computes."""


@dataclass(frozen=True)
class HeldFeatures:
    """The features of the images of a pool, and of the same images flipped.

    Args:
        files: one per rank that computed them. Of W files, file r has the images r, r + W, ..., once for each of `ways`.
        content: of `complete.json`: `key`, `files`, `shared` (taps of the teacher whose features are those of a point), and
            `types` (those of features that the files have in bf16).
        pool: the images.
        ways: see `contseg.data.pipelines.augment.variants`.
    """

    files: tuple[RecordReader, ...]
    content: dict[str, Any]
    pool: Pool
    ways: tuple[bool, ...]

    @classmethod
    def of(cls, folder: Path, key: str, pool: Pool, ways: tuple[bool, ...]) -> "HeldFeatures | None":
        """Those in a folder; None if they have another key, or a file is missing or cut off."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
            files = tuple(RecordReader(folder / name) for name in content["files"])
            if content["key"] == key and sum(map(len, files)) == len(pool) * len(ways):
                return cls(files, content, pool, ways)
        return None

    def record(self, index: int, mirrored: bool) -> dict[str, Tensor]:
        """What the files have of an image."""
        rank, count = index % len(self.files), len(self.files)
        own = len(range(rank, len(self.pool), count))
        return self.files[rank][self.ways.index(mirrored) * own + index // count]

    def batch(self, indices: list[int], mirrored: list[bool]) -> Batch:
        """Samples without images, on CPU."""
        records = [self.record(*each) for each in zip(indices, mirrored, strict=True)]
        columns = {name: torch.stack([record[name] for record in records]) for name in records[0]}
        labels = columns.pop(LABELS)
        for name, kind in self.content["types"].items():
            columns[name] = columns[name].to(getattr(torch, kind))
        teacher = {name.removeprefix(TEACHER): value for name, value in columns.items() if name.startswith(TEACHER)}
        student = {name: value for name, value in columns.items() if not name.startswith(TEACHER)}
        teacher |= {tap: student[point] for tap, point in self.content["shared"].items()}
        places = [self.pool.locate(index) for index in indices]
        return Batch(
            torch.empty(len(indices), 3, *labels.shape[1:], dtype=torch.uint8, device="meta"),
            labels,
            tuple(samples.names[place] for samples, place in places),
            torch.stack([torch.from_numpy(samples.annotated) for samples, _ in places]),
            held=Held(student, teacher),
        )


class HeldBatches(Batches):
    """Batches like those of `Batches`, with features in place of images; no process is needed to read them.

    Args:
        pipeline: of the images, whose `mirrored` decides for each sample whether it is flipped.
        draws, seed, step, device: as of `Batches`.
    """

    def __init__(
        self, features: HeldFeatures, pipeline: Any, draws: list[list[Draw]], *, seed: int, step: int, device: torch.device
    ):
        super().__init__(features.pool, pipeline, draws, seed=seed, step=step, device=device)
        self._features, self._flips, self._place = features, pipeline, (seed, step)

    def __iter__(self) -> Generator[Batch, None, None]:
        for draws in self._draws:
            mirrored = [
                self._flips.mirrored(data_generator(SAMPLE, *self._place, draw.epoch, draw.position)) for draw in draws
            ]
            yield self._features.batch([draw.index for draw in draws], mirrored).to(self._device)

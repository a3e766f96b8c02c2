"""Frozen features once: what a step does not change is computed for each of its images once and kept in files."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contseg.atomic import size_text, write_text
from contseg.data.pipelines.augment import variants
from contseg.digest import sha256
from contseg.engine.code import package_digest
from contseg.engine.devices import accelerator_of, precision_of, workers_of
from contseg.engine.held_batches import COMPLETE, LABELS, TEACHER, HeldBatches, HeldFeatures
from contseg.engine.loading import Batches, Draw, StepBatches
from contseg.engine.records import RecordWriter, bytes_of, require_space
from contseg.engine.session import Session
from contseg.engine.update import Updater
from contseg.engine.waits import waiting_for
from contseg.errors import ContsegError, counted
from contseg.models.from_features import FromFeatures
from contseg.models.held import start_points
from contseg.models.names import STAGES
from contseg.scenarios.batch import Pool
from contseg.scenarios.digests import samples_digest
from contseg.scenarios.step import Step

WAYS = "free some space, set training.features=cached-bf16, which takes half of float32, or training.features=live"


def discard_features(session: Session, step: Step) -> None:
    """Delete the features of a step, if there are any."""
    if session.leads:
        shutil.rmtree(session.run.feature_folder(step.index), ignore_errors=True)


def hold_features(session: Session, step: Step, updater: Updater, batches: StepBatches) -> None:
    """Compute the features of a step, or find those that an interrupted attempt left, and train from them.

    Does nothing with `training.features=live`, in a step that trains the network itself or draws its crops anew, and in one
    with no more epochs than ways to cut an image, which would gain nothing.

    Raises:
        ContsegError: an image cannot be read, the disk has no room, or an image does not always give the same features.
    """
    options, pipeline = session.job.training, session.job.training_pipeline
    ways = variants(pipeline)
    if options.features == "live" or not 0 < len(ways) < options.epochs_of(step.index):
        return
    updater.module.train()
    try:
        points = start_points(updater.student, updater.taps)
    except ContsegError as problem:
        if step.index:
            session.reporter.message(f"step {step.index}: features are computed in every epoch, as {problem}")
        return
    pool = Pool((step.train, *step.memory))
    build = _Build(session, step, updater, points, pool, ways)
    folder = session.run.feature_folder(step.index)
    with waiting_for(f"the features of step {step.index}"):
        key = session.fabric.broadcast(build.key() if session.leads else "")
        there = session.leads and HeldFeatures.of(folder, key, pool, ways) is not None
        if not session.fabric.broadcast(there):
            build.run(folder, key)
    held = HeldFeatures.of(folder, key, pool, ways)
    if held is None:
        raise ContsegError(f"{folder}: the features cannot be read; delete this folder, and resume the run")
    seed, device = options.seed, session.fabric.device
    batches.held = partial(HeldBatches, held, pipeline, seed=seed, step=step.index, device=device)


@dataclass(frozen=True)
class _Build:
    """Computes the features of a step. All ranks make the same calls; each computes its share of the images."""

    session: Session
    step: Step
    updater: Updater
    points: tuple[str, ...]
    pool: Pool
    ways: tuple[bool, ...]

    def key(self) -> str:
        """SHA-256 over everything that influences the features, like the key of the step cache."""
        job, updater = self.session.job, self.updater
        teacher = [] if updater.teacher is None else [updater.teacher]
        parts = {
            "layout": 1,
            "code": package_digest(),
            "own_code": job.own_code(),
            "points": self.points,
            "taps": updater.method.taps,
            "network": job.network.model_dump(mode="json"),
            "training": [job.training.features, job.training.batch, job.training.ranks, job.training.channels_last],
            "device": [accelerator_of(job.training), precision_of(job.training)],
            "pipeline": repr(job.training_pipeline),
            "files": job.scenario.train_presence.fingerprint,
            "samples": [samples_digest(samples) for samples in self.pool.parts],
            "weights": [_weights_digest(module) for module in (*_trunk(updater.student), *teacher)],
        }
        return sha256(json.dumps(parts, sort_keys=True))

    def run(self, folder: Path, key: str) -> None:
        """Write the files."""
        session, options = self.session, self.session.job.training
        discard_features(session, self.step)
        session.fabric.barrier()
        shared, problem = session.fabric.broadcast(self._compared() if session.leads else (None, ""))
        if problem:
            raise ContsegError(problem)
        records = self._records(shared)
        first = next(records, None)
        if first is not None:
            problem = self._shortage(folder.parent, first)
        if problem := session.fabric.broadcast(problem):
            raise ContsegError(problem)
        name = f"{session.shard.rank}.bin"
        types: dict[str, str] = {}
        with RecordWriter(folder / name) as writer:
            for record in chain([] if first is None else [first], records):
                writer.append(self._narrow(record, types) if options.features == "cached-bf16" else record)
        session.fabric.barrier()
        if session.leads:
            files = [f"{rank}.bin" for rank in range(session.shard.count)]
            content = {"key": key, "files": files, "shared": shared or {}, "types": types}
            write_text(folder / COMPLETE, json.dumps(content))
        session.fabric.barrier()

    def _compared(self) -> tuple[dict[str, str] | None, str]:
        """Taps of the teacher that are points of the student; and a problem with the points, as found on a batch.

        None if the teacher's features are not the student's.
        """
        updater, teacher = self.updater, self.updater.teacher
        batch = next(iter(self._batches(self.ways[0], self._draws()[:1])))
        with self.session.fabric.autocast():
            own, again = (updater.student.features_at(updater.inputs(batch), self.points) for _ in range(2))
            for point, value in own.items():
                if not torch.equal(value, again[point]):
                    name = self.session.job.training.features
                    return None, (
                        f"training.features: '{name}' keeps features, but {point} of the image {batch.names[0]} differs from"
                        " pass to pass; set training.features=live"
                    )
            if teacher is None or not self._is_shared(own, updater.inputs(batch)):
                return None, ""
            output = self._teacher_from(own, batch.size)
        return {tap: point for tap, value in output.items() for point in own if _is_same(value, own[point])}, ""

    def _is_shared(self, own: dict[str, Tensor], images_BCHW: Tensor) -> bool:
        """Whether the teacher, in evaluation mode, computes the very features of the student."""
        student, teacher = self.updater.student, self.updater.teacher
        assert teacher is not None
        parts: list[tuple[nn.Module, nn.Module]] = [(student.backbone, teacher.backbone)]
        if not set(self.points) <= {*STAGES, "auxiliary"}:
            parts.append((student.head, teacher.head))
        if not all(_have_equal_weights(*pair) for pair in parts):
            return False
        points = [point for point in self.points if point != "auxiliary"]
        theirs = teacher.features_at(images_BCHW, points)
        return all(torch.equal(own[point], theirs[point]) for point in points)

    @torch.no_grad()
    def _teacher_from(self, features: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """The teacher's output by tap, from features that it shares with the student."""
        updater = self.updater
        assert updater.teacher is not None
        output = updater.teacher(None, taps=updater.method.taps, start=FromFeatures(features, size))
        return {"logits": output.logits, **output.features}

    def _records(self, shared: dict[str, str] | None) -> Iterator[dict[str, Tensor]]:
        """What is kept of each image of this rank: its features, those of the teacher, and its labels."""
        updater, draws = self.updater, self._draws()
        left = len(self._own)
        for mirrored in self.ways:
            for number, batch in enumerate(self._batches(mirrored, draws)):
                with self.session.fabric.autocast():
                    columns = updater.student.features_at(updater.inputs(batch), self.points)
                    theirs: dict[str, Tensor] = {}
                    if shared is not None:
                        theirs = self._teacher_from(columns, batch.size)
                    elif updater.context.predict_teacher is not None:
                        output = updater.context.predict_teacher(batch)
                        theirs = {"logits": output.logits, **output.features}
                columns |= {TEACHER + tap: value for tap, value in theirs.items() if tap not in (shared or {})}
                columns[LABELS] = batch.labels.to(torch.uint8)
                columns = {name: value.cpu() for name, value in columns.items()}
                for place in range(min(len(batch.names), left - number * len(batch.names))):
                    yield {name: value[place] for name, value in columns.items()}

    @cached_property
    def _own(self) -> range:
        """The images that this rank computes."""
        return range(self.session.shard.rank, len(self.pool), self.session.shard.count)

    def _draws(self) -> list[list[Draw]]:
        """Batches of the size of training, so that layers round alike; the last image fills the last batch."""
        size = self.session.job.training.batch // self.session.shard.count
        own = list(self._own)
        own += own[-1:] * (-len(own) % size)
        return [[Draw(0, index, index) for index in own[start : start + size]] for start in range(0, len(own), size)]

    def _batches(self, mirrored: bool, draws: list[list[Draw]]) -> Batches:
        job = self.session.job
        pipeline: Any = job.training_pipeline
        return Batches(
            self.pool,
            replace(pipeline, flip=float(mirrored)),
            draws,
            seed=job.training.seed,
            step=self.step.index,
            device=self.session.fabric.device,
            workers=workers_of(job.training),
        )

    def _shortage(self, folder: Path, record: dict[str, Tensor]) -> str:
        """The error if a folder has no room for all files; "" and a message if it has."""
        kept = self._narrow(record, {}) if self.session.job.training.features == "cached-bf16" else record
        needed = bytes_of(kept) * len(self.pool) * len(self.ways)
        self.session.run.step_folder(self.step.index)
        what = f"features of {counted(len(self.pool), 'image')}{' and their mirror images' * (len(self.ways) > 1)}"
        try:
            require_space(folder, needed, f"training.features: {what}", WAYS)
        except ContsegError as problem:
            return str(problem)
        self.session.reporter.message(
            f"step {self.step.index}: {what} ({', '.join(self.points)}) are computed once; they take {size_text(needed)}"
            " until the end of the step"
        )
        return ""

    def _narrow(self, record: dict[str, Tensor], types: dict[str, str]) -> dict[str, Tensor]:
        """Features as bf16, except the teacher's logits; the types that they had are noted."""
        logits = TEACHER + "logits"
        wide = {name for name, value in record.items() if name != logits and value.dtype in (torch.float32, torch.float64)}
        types |= {name: str(record[name].dtype).removeprefix("torch.") for name in wide}
        return {name: value.bfloat16() if name in wide else value for name, value in record.items()}


def _trunk(student: Any) -> list[nn.Module]:
    """The parts of a student that features can come from."""
    extra = [] if student.auxiliary is None else [student.auxiliary.convolution]
    return [student.backbone, student.head, *extra]


def _weights_digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(memoryview(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _have_equal_weights(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same place in memory."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.dtype == other.dtype

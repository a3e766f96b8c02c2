"""Frozen features once: what a step does not change is computed for each of its images once and kept in files."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from contseg.atomic import writable
from contseg.data.pipelines.augment import variants
from contseg.digest import sha256
from contseg.engine.code import package_digest
from contseg.engine.devices import accelerator_of, precision_of
from contseg.engine.loading import Batches, Draw, StepBatches
from contseg.engine.randomness import SAMPLE, data_generator
from contseg.engine.records import RecordReader, RecordWriter, bytes_of, require_space
from contseg.engine.session import Session
from contseg.engine.update import Updater
from contseg.engine.waits import waiting_for
from contseg.errors import ContsegError
from contseg.models.held import start_points
from contseg.models.segmenter import Segmenter
from contseg.models.start import Start
from contseg.scenarios.batch import Batch, Held, Pool
from contseg.scenarios.digests import samples_digest
from contseg.scenarios.step import Step

FOLDER = "features"
"""In the folder of a step, until its last update."""
WAYS = "free some space, set training.features=cached-bf16, which takes half, or training.features=live"
TEACHER = "teacher."
"""Before the names of what only the teacher computes."""


def feature_folder(session: Session, step: Step) -> Path:
    """The folder of the features of a step, which the ranks share."""
    return session.run.folder / "steps" / f"{step.index:02d}" / FOLDER


def discard_features(session: Session, step: Step) -> None:
    """Delete the features of a step, if there are any. Ranks read nothing of them any more."""
    if session.leads:
        shutil.rmtree(feature_folder(session, step), ignore_errors=True)


def hold_features(session: Session, step: Step, updater: Updater, batches: StepBatches) -> None:
    """Compute the features of a step, or find those that an interrupted attempt left, and train from them.

    Does nothing with `training.features=live`, in a step that trains the network itself or draws its crops anew, and in one
    with no more epochs than variants of an image, which would not gain.

    Raises:
        ContsegError: an image cannot be read, or the disk has no room.
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
            session.reporter.message(f"step {step.index}: features are live, as {problem}")
        return
    build = _Build(session, step, updater, batches, points, ways)
    key = session.fabric.broadcast(build.key() if session.leads else "")
    if not session.fabric.broadcast(session.leads and build.is_complete(key)):
        with waiting_for(f"the features of step {step.index}"):
            build.run(key)
    held = HeldFeatures.of(build.folder, step, batches.pool, ways)
    if held is None:
        raise ContsegError(f"{build.folder}: features cannot be read; delete this folder and resume the run")
    batches.held = held.batches



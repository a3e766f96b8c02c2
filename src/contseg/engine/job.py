"""A resolved run, and the interface of progress reports."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contseg.data.pipelines.augment import Jitter, Pipeline
from contseg.digest import file_sha256, sha256
from contseg.engine.code import package_digest
from contseg.engine.devices import accelerator_of, precision_of
from contseg.engine.loading import drawn_images, updates_per_epoch
from contseg.engine.options import MACHINE_KEYS, TrainingOptions
from contseg.evaluation.inference import Inference, InferenceOptions
from contseg.methods.method import Method
from contseg.models.options import NetworkOptions
from contseg.plugins import foreign_digest
from contseg.scenarios.digests import samples_digest
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step


class Reporter:
    """Receives the progress of a run, on rank 0; this one ignores it. Override the calls that you need."""

    def start(self, updates: Sequence[int]) -> None:
        """Called first, in the training process.

        Args:
            updates: of the weights in each step, over all epochs.
        """

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        """A step begins or continues; `updates` are left."""

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        """An update is done; `loss` is that of its last forward pass."""

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """An epoch is done and saved; `loss` is the mean."""

    def evaluating(self, batches: int) -> None:
        """An evaluation begins."""

    def evaluated(self) -> None:
        """One batch of the evaluation is done."""

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        """A step is finished.

        Args:
            figures: its line of metrics.jsonl; metrics are in [0, 1] or None.
        """

    def message(self, text: str) -> None:
        """One line of text for the user."""

    def stop(self) -> None:
        """Called last, also after an error."""


@dataclass(frozen=True)
class Job:
    """A resolved run.

    Args:
        scenario: the steps to learn.
        method, network, training: how to learn them.
        training_pipeline, evaluation_pipeline: how to cut samples.
        recipe: the resolved recipe, as written to the run.
        folder: folder of the run.
        backbone_weights: ImageNet weights for step 0, see `load_backbone`.
        cache: folder in which runs share step 0, or None to always train it.
        inference: sliding windows, scales and flips for the evaluation of a step.
        start_from: a trained segmenter (folder or file) that is used in place of step 0, or None to train step 0.
    """

    scenario: Scenario
    method: Method
    network: NetworkOptions
    training: TrainingOptions
    training_pipeline: Pipeline
    evaluation_pipeline: Pipeline
    recipe: dict[str, Any]
    folder: Path
    backbone_weights: Path | None = None
    cache: Path | None = None
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    start_from: Path | None = None

    def own_code(self, *, method: bool = True) -> list[str]:
        """Digests of the sources of parts that come from a plugin; "" for a part of the package.

        Args:
            method: whether the method is one of the parts.
        """
        cut = self.training_pipeline
        parts = [self.scenario.dataset, cut.pipeline if isinstance(cut, Jitter) else cut]
        parts += [self.network.backbone, self.network.head, *([self.method] if method else [])]
        return [foreign_digest(type(part)) for part in parts]

    @property
    def exemplar_share(self) -> float:
        """Share of every batch that exemplars replace; 0 draws them like the step's own images."""
        memory = self.scenario.options.memory
        return memory.share if memory and memory.mix == "share" else 0.0

    @property
    def reserved(self) -> list[int]:
        """Classes of each later step whose classifiers exist from step 0 on; [] unless the method starts from them."""
        starts = self.method.new_classes_start_from == "reserved"
        return [step.new_count for step in self.scenario[1:]] if starts else []

    def updates_of(self, step: Step) -> int:
        """Updates of the weights in a step, over all epochs."""
        if step.index == 0 and self.start_from is not None:
            return 0
        images = drawn_images(step, self.exemplar_share)
        return self.training.epochs_of(step.index) * updates_per_epoch(images, self.training)

    def inference_at(self, step: Step) -> Inference:
        """Inference options for the classes of a step."""
        return Inference.of(self.inference, self.scenario.dataset.mirror, step.table.ids)

    def first_step_key(self) -> str:
        """SHA-256 over everything that influences the weights after step 0: the key of the step cache.

        It covers options, method, network and pipelines; names and contents of the files, saliency maps included; the
        weights of the backbone; ranks, accelerator and precision; and the source code.

        Raises:
            ContsegError: a saliency map or the file of the backbone's weights is missing.
        """
        step, method = self.scenario[0], self.method.first_step_key()
        training = {
            name: value
            for name, value in self.training.model_dump().items()
            if name not in MACHINE_KEYS | {"epochs", "lr_later", "lr_factors_later"}
        }
        if training["features"] == "cached":
            training["features"] = "live"  # the same up to rounding
        parts = {
            "layout": 3,
            "code": package_digest(),
            "method": method,
            "own_code": self.own_code(method=bool(method)),
            "ranks": self.training.ranks,
            "accelerator": accelerator_of(self.training),
            "network": self.network.model_dump(),
            "training": training | {"epochs": self.training.epochs_of(0), "precision": precision_of(self.training)},
            "pipeline": repr(self.training_pipeline),
            "evaluation": f"{self.evaluation_pipeline!r} {self.inference.single()!r}"
            if self.training.keep == "best"
            else "",
            "classes": step.new_classes,
            "reserved": self.reserved,
            "files": self.scenario.train_presence.fingerprint,
            "samples": [samples_digest(samples) for samples in (step.train, step.val)],
            "backbone": file_digest(self.backbone_weights),
        }
        return sha256(json.dumps(parts, sort_keys=True))


def file_digest(path: Path | None) -> str:
    """SHA-256 of the bytes of a file, or of the weights in a folder; "" for None; `hub` and `package` themselves."""
    if path is None:
        return ""
    if str(path) in ("hub", "package"):
        return str(path)
    if path.is_dir():
        path = path / "model.safetensors"
    return file_sha256(path)

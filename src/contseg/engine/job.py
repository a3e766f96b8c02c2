"""Everything a run needs, and who is told how it goes."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contseg.data.pipelines.augment import Jitter, Pipeline
from contseg.engine.code import package_digest
from contseg.engine.devices import accelerator_of, precision_of
from contseg.engine.options import MACHINE_KEYS, TrainingOptions
from contseg.evaluation.inference import Inference, InferenceOptions
from contseg.methods.method import Method
from contseg.models.options import NetworkOptions
from contseg.plugins import foreign_digest
from contseg.scenarios.digests import samples_digest
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step


class Reporter:
    """Told of progress by rank 0; the command line draws it. All calls are optional."""

    def start(self) -> None:
        """Before anything else, in the process that trains."""

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        """A step begins (or goes on); `updates` are still to come."""

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        """One update of the weights is done; `loss` is that of the update before, and its own at the first of a step."""

    def epoch_finished(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """An epoch is done and saved; `loss` is its mean."""

    def evaluating(self, batches: int) -> None:
        """An evaluation of this many batches begins."""

    def evaluated(self) -> None:
        """One batch of it is done."""

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        """The figures after a step."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def stop(self) -> None:
        """After everything else, also after an error."""


@dataclass(frozen=True)
class Job:
    """A resolved run.

    Args:
        scenario, method, network, training: what is learned, how, with what.
        training_pipeline, evaluation_pipeline: how samples are cut.
        recipe: the resolved recipe, as written to the run.
        folder: of the run.
        backbone_weights: ImageNet weights for step 0, see `load_backbone`.
        cache: folder in which step 0 is shared between runs, or None to train it always.
        inference: how images are seen when a step is measured.
        start_from: a trained segmenter (folder or file) that stands for step 0, or None to train step 0.
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

    def _own_parts(self) -> tuple[Any, ...]:
        """What may be of a plugin, but for the method."""
        cut = self.training_pipeline
        return (
            self.scenario.dataset,
            cut.pipeline if isinstance(cut, Jitter) else cut,
            self.network.backbone,
            self.network.head,
        )

    def inference_at(self, step: Step) -> Inference:
        """How the segmenter of a step is asked."""
        return Inference.of(self.inference, self.scenario.dataset.mirror, step.table.ids)

    def first_step_key(self) -> str:
        """SHA-256 over everything that influences the weights after step 0: the key of the step cache.

        Options, method, network and pipelines, names and contents of the files (of saliency maps too), the weights of the
        backbone, how many ranks compute on what at which precision, and the code that computes.

        Raises:
            ContsegError: a saliency map or the file of the backbone's weights is missing.
        """
        step, method = self.scenario[0], self.method.first_step_key()
        training = {
            name: value
            for name, value in self.training.model_dump().items()
            if name not in MACHINE_KEYS | {"epochs", "lr_later", "lr_factors_later"}
        }
        parts = {
            "layout": 3,
            "code": package_digest(),
            "method": method,
            "own_code": [foreign_digest(type(part)) for part in (*self._own_parts(), *([self.method] if method else []))],
            "ranks": self.training.devices * self.training.nodes,
            "accelerator": accelerator_of(self.training),
            "network": self.network.model_dump(),
            "training": training | {"epochs": self.training.epochs_of(0), "precision": precision_of(self.training)},
            "pipeline": repr(self.training_pipeline),
            "evaluation": f"{self.evaluation_pipeline!r} {self.inference.single()!r}"
            if self.training.keep == "best"
            else "",
            "classes": step.new_classes,
            "files": self.scenario.train_presence.fingerprint,
            "samples": [samples_digest(samples) for samples in (step.train, step.val)],
            "backbone": file_digest(self.backbone_weights),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path | None) -> str:
    """SHA-256 of the bytes of a file, or of the weights in a folder; "" for None, and `hub` stands for itself."""
    if path is None:
        return ""
    if str(path) == "hub":
        return "hub"
    if path.is_dir():
        path = path / "model.safetensors"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

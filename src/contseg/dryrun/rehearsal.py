"""Check a recipe without its data: two updates of its first two steps on synthetic images."""

import math
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from contseg.dryrun.stand_ins import own_cache, quartered, ready_norms, rehearsed, with_changes
from contseg.engine.job import Job, Reporter
from contseg.engine.loading import drawn_images, updates_per_epoch
from contseg.engine.memory import peak_memory
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.method import Method, StepContext
from contseg.models.make import make_segmenter
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_job, start_run
from contseg.recipes.effect import without_effect
from contseg.recipes.read import Resolved, resolve
from contseg.scenarios.step import Step

STEPS = 2
ITERATIONS = 2
OTHERS = 2
"""Number of test images, and of images in every part of the memory."""


@dataclass(frozen=True)
class Rehearsal:
    """The results of a recipe that passed.

    Attributes:
        recipe: name of the recipe.
        parameters: number of parameters of the network after the last step.
        seconds: duration of the check.
        memory: peak memory of this process so far, in GiB: of the GPU if there is one, else of main memory; None if the
            system does not report it.
    """

    recipe: str
    parameters: int
    seconds: float
    memory: float | None


def rehearse(
    source: str | Path, overrides: Sequence[str] = (), *, quarter: bool = False, folder: Path | None = None
) -> Rehearsal:
    """Check a recipe without its data: run two updates and one evaluation of steps 0 and 1 with the real network and
    classes on synthetic images. Nothing is downloaded, and no file is left.

    Args:
        source, overrides: as in `read_recipe`.
        quarter: use a quarter of the recipe's crop.
        folder: folder of the synthetic images, which several checks may share; default: a temporary one.

    Raises:
        ContsegError: training fails, a segmenter changes when it is saved and loaded, metrics are missing, or a key of the
            recipe has no effect.

    Example:
        >>> tiny = ["network.backbone.width=4", "network.head.width=8", "data.crop=32", "data.options={size: 32}"]
        >>> rehearse("digits/plop_5-1", tiny).parameters
        52711
    """
    started = time.perf_counter()
    resolved = resolve(source, overrides)
    with tempfile.TemporaryDirectory(prefix="contseg-") as own:
        shared = folder or Path(own) / "shared"
        with own_cache(shared / "cache"):
            parameters = _rehearse(resolved, quarter, shared, Path(own))
    memory = peak_memory(torch.cuda.is_available() and resolved.recipe.training.accelerator != "cpu")
    gibibytes = None if memory is None else memory / 2**30
    return Rehearsal(resolved.recipe.name, parameters, time.perf_counter() - started, gibibytes)


def _rehearse(resolved: Resolved, quarter: bool, shared: Path, own: Path) -> int:
    recipe = rehearsed(quartered(resolved.recipe) if quarter else resolved.recipe, shared, own)
    run = start_run(recipe, own / "run")
    # made with two images per batch, which all norms accept; for single images see `ready_norms`
    several = with_changes(recipe, training=with_changes(recipe.training, batch=max(2, recipe.training.batch)))
    whole = replace(make_job(several, run.folder), training=recipe.training)
    checks = _Checks(run, single=recipe.training.batch == 1)
    job = _short(replace(whole, method=checks.follow(whole.method)))
    train(job, checks)
    steps = range(len(job.scenario))
    untrained = [step for step in steps if not job.training.epochs_of(step)]
    require_figures(run, len(steps), untrained, unmeasured=recipe.evaluation.undecided == "ignored")
    require_effect(resolved, checks.read)
    student = checks.student
    for step in whole.scenario[STEPS:]:
        if step.new_count:
            student.grow(step.new_count, whole.method.new_classes_start_from)
    return sum(parameter.numel() for parameter in student.parameters())


def _short(job: Job) -> Job:
    """The job with two updates of each of its first two steps."""
    training = job.training
    scenario = job.scenario.head(STEPS, ITERATIONS * training.batch * training.accumulate, OTHERS)
    epochs = [
        -(-ITERATIONS // updates_per_epoch(drawn_images(step, job.exemplar_share), training))
        if training.epochs_of(step.index)
        else 0
        for step in scenario
    ]
    return replace(job, scenario=scenario, training=with_changes(training, epochs=epochs))


class _Checks(Reporter):
    """Compares the segmenter of every step with its file.

    Args:
        single: whether a batch is a single image.

    Attributes:
        student: the segmenter of the last finished step.
        read: the hyper-parameters that the method read.
    """

    student: Segmenter

    def __init__(self, run: Run, single: bool):
        self._run, self._single, self.read = run, single, set[str]()

    def follow(self, method: Method) -> Method:
        """The method, changed in place so that its student and the hyper-parameters that it reads are recorded here."""
        kind, checks = type(method), self
        keys = {field.name for field in fields(method) if field.init}

        class Followed(kind):  # type: ignore[misc, valid-type]
            def __getattribute__(self, name: str) -> Any:
                if name in keys:
                    checks.read.add(name)
                return super().__getattribute__(name)

            def prepare(self, segmenter: Segmenter, step: Step) -> None:
                super().prepare(segmenter, step)
                ready_norms(segmenter, checks._single)

            def after_step(self, context: StepContext) -> None:
                super().after_step(context)
                checks.student = context.student

        object.__setattr__(method, "__class__", Followed)
        return method

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        require_same(self._run.segmenter_path(step), self.student)


def require_same(path: Path, segmenter: Segmenter) -> None:
    """Raise ContsegError unless a file contains exactly the tensors of a segmenter, bit for bit.

    Raises:
        ContsegError: a tensor is missing, has another shape, or differs (names it).
    """
    try:
        read = load_segmenter(path)[0].state_dict()
    except ContsegError as error:
        raise ContsegError(_strange_tensor(path, segmenter) or str(error)) from None
    for name, value in segmenter.state_dict().items():
        if value.dtype != read[name].dtype or not torch.equal(value.cpu(), read[name]):
            raise ContsegError(f"tensor {name}: differs when the segmenter is read from its file")


def _strange_tensor(path: Path, segmenter: Segmenter) -> str | None:
    """The first tensor of a file that does not fit a new network."""
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    new = make_segmenter(segmenter.options, segmenter.widths)
    wanted = {name: tuple(value.shape) for name, value in new.state_dict().items()}
    for name in sorted(shapes.keys() | wanted.keys()):
        found, needed = shapes.get(name, "nothing"), wanted.get(name, "nothing")
        if found != needed:
            return f"tensor {name}: the file of the segmenter contains {found}, a new network needs {needed}"
    return None


def require_figures(run: Run, steps: int, untrained: Sequence[int] = (), unmeasured: bool = False) -> None:
    """Raise ContsegError unless metrics.jsonl has lines with finite numbers of every step and of its epochs.

    Args:
        untrained: steps without epochs.
        unmeasured: whether a step may have nothing to measure, as undecided pixels are ignored and an untrained network may
            leave all of them undecided.

    Raises:
        ContsegError: a line is missing or a number is not finite (names it).
    """
    lines = run.metrics()
    for step in range(steps):
        values = {
            kind: [line[key] for line in lines if line["kind"] == kind and line["step"] == step]
            for kind, key in (("epoch", "loss"), ("step", "all_with_background"))
        }
        if step in untrained:
            del values["epoch"]
        for kind, found in values.items():
            missing = unmeasured and kind == "step"
            if not found or not all(missing if value is None else math.isfinite(value) for value in found):
                raise ContsegError(f"metrics.jsonl: the figures of a {kind} line of step {step} are {found or 'missing'}")


def require_effect(resolved: Resolved, read_of_method: Collection[str]) -> None:
    """Raise ContsegError if the recipe sets a key that has no effect.

    Args:
        read_of_method: names of the hyper-parameters that the method read.
    """
    used = {"name", "variant", *read_of_method}
    reasons = {key: f"without {need}" for key, need in without_effect(resolved.recipe, resolved.origins).items()}
    for key in resolved.origins:
        if key.startswith("method.") and key.split(".")[1] not in used:
            reasons[key] = "with this method"
    if reasons:
        keys = [f"{key} has no effect {reason} (set by {resolved.origins[key]})" for key, reason in reasons.items()]
        raise ContsegError(f"{', '.join(keys)}; remove it")

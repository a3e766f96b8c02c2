"""The folder of a run, with everything that a resume or a report needs."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contseg import atomic
from contseg.archives import read_arrays, read_pickle
from contseg.data.classes import ClassTable
from contseg.engine.arrays import belong
from contseg.engine.metric_lines import lines_at, whole_lines
from contseg.engine.step_state import StepState
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import write_segmenter
from contseg.manifest import Manifest
from contseg.models.segmenter import Segmenter

INPUTS = "inputs.json"
LOGGERS = "loggers.json"
FILES = (
    "recipe.yaml", INPUTS, "plan.json", "environment.json", "metrics.jsonl", "samples.npz", "summary.json", "report.html",
    "log.txt", "maps.npz", "explain.npz", "explain.html", LOGGERS, "manifest.json",
)  # fmt: skip
FOLDERS = ("steps", "tensorboard")
MAPS, EXPLAIN = "maps.npz", "explain.npz"
ORIGINS = "label_origins.npz"
METRICS = "metrics.jsonl"
STATE, STATE_BEFORE, SEGMENTER = "state.pt", "state.before.pt", "segmenter.safetensors"
STEP_ARRAYS = ("confusion.npz", "predictions.npz")
"""Files of a step that can be computed again from its segmenter and the test set."""


class Run:
    """The folder of a run.

    Layout:

        recipe.yaml                     the resolved recipe
        plan.json                       images per step, pixels per class, digests of both, plan hash; of the data at the
                                        start of the run
        inputs.json                     what the result depends on, at the start of the run: the recipe, digests of code and
                                        weights, PyTorch's version, ranks; and the changes that were accepted at a resume
        environment.json                versions and machine
        metrics.jsonl                   one line per epoch (`kind: epoch`: losses, rate, speed, pseudo labels) and per step
                                        (`kind: step`: metrics, sums of panoptic quality, cost, warnings)
        samples.npz                     a few test images and their labels, class names and colours, for the report
        steps/03/segmenter.safetensors  the segmenter after step 3, with its classes
        steps/03/state.pt               a `StepState`: of a step in training, weights, optimiser, the method's state and the
                                        best epoch so far; of a finished step, the method's state
        steps/03/state.before.pt        the state before that one, until the step is finished
        steps/03/confusion.npz          the confusion matrix on the step's test set, also per domain; of each class its name,
                                        its step, and whether the masks label it; whether the first is background; names of
                                        the domains
        steps/03/predictions.npz        predictions for the sample images
        steps/03/label_origins.npz      training images with their given labels and those with pseudo labels, for the report
        steps/03/features/              features that the step does not change, until its end (`training.features`)
        maps.npz                        `contseg demo` on the globe: the Earth, its truth and the map after each step
        summary.json                    the metrics of the run; written when the run is finished
        report.html                     the report, written by the commands `train` and `report`
        explain.html                    activation maps and features of regions, written by the command `explain`
        explain.npz                     what is shown there, for the report
        tensorboard/                    events made from metrics.jsonl, where the extra is installed
        loggers.json                    with other loggers: the names of their runs, and how many lines of metrics.jsonl they
                                        have
        run.lock                        while a process trains here: its machine, its number and when it began
        log.txt                         output of the process of a run that `contseg demo` or a sweep trains alongside others
        manifest.json                   size and SHA-256 of the files of the run, which are checked when they are read

    A resume reads `state.pt` of the step, the segmenter of the step before, and everything else from the recipe. It
    compares everything with `plan.json` and `inputs.json` (`contseg.engine.inputs`). If a file is damaged, it continues from
    the last good state (`recover`).

    Ctrl-C and SIGTERM lose nothing: the current update is finished and saved, also in the middle of an epoch. A kill loses
    at most the current epoch: every file except `metrics.jsonl` is written atomically, and `state.pt`, written last,
    contains the lines of `metrics.jsonl`, which a resume restores.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.manifest = Manifest(self.folder)

    def __repr__(self) -> str:
        steps = 0
        while (self.folder / "steps" / f"{steps:02d}" / "confusion.npz").is_file():
            steps += 1
        finished = (self.folder / "summary.json").is_file()
        return f"Run('{self.folder}', recipe={self._recipe_name()!r}, steps={steps}, finished={finished})"

    def _recipe_name(self) -> str | None:
        """The name in recipe.yaml, or None if it cannot be read."""
        try:
            content = YAML(typ="safe").load((self.folder / "recipe.yaml").read_text(encoding="utf-8"))
            return content["name"]
        except (OSError, ValueError, YAMLError, TypeError, KeyError):
            return None

    def require(self) -> "Run":
        """This run, after a check that the folder contains one.

        Raises:
            ContsegError: the folder contains no run.
        """
        if not (self.folder / "recipe.yaml").is_file():
            raise ContsegError(f"{self.folder}: contains no run (recipe.yaml is missing); give the folder of a run")
        return self

    def step_folder(self, step: int) -> Path:
        """`steps/NN`, created if missing."""
        folder = self.folder / "steps" / f"{step:02d}"
        with atomic.writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def feature_folder(self, step: int) -> Path:
        """Features of a step in training (`training.features`), which its end deletes."""
        return self.folder / "steps" / f"{step:02d}" / "features"

    def segmenter_path(self, step: int) -> Path:
        """The segmenter at the end of a step."""
        return self.folder / "steps" / f"{step:02d}" / SEGMENTER

    def state_path(self, step: int, name: str = STATE) -> Path:
        """The state of a step; `STATE_BEFORE` is the one before."""
        return self.folder / "steps" / f"{step:02d}" / name

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run atomically."""
        with self.manifest.writing(self.folder / name) as partial:
            partial.write_text(text, encoding="utf-8")

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        path = self.folder / METRICS
        with atomic.writable(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.manifest.record(path, grows=True)

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl.

        Raises:
            ContsegError: the file is damaged.
        """
        path = self.folder / METRICS
        self.manifest.check(path, f"repair it with: contseg train --resume {self.folder}")
        content = path.read_bytes() if path.is_file() else b""
        lines = whole_lines(content)
        if len(lines) < content.count(b"\n"):
            raise ContsegError(
                f"{path}: line {len(lines) + 1} is damaged; repair it with: contseg train --resume {self.folder}"
            )
        return lines

    def save_segmenter(self, step: int, segmenter: Segmenter, classes: ClassTable, source: dict[str, Any]) -> None:
        """Write the segmenter of a step; see `contseg.save_segmenter`."""
        with self.manifest.writing(self.step_folder(step) / SEGMENTER) as partial:
            write_segmenter(partial, segmenter, classes, source)

    def save_state(self, step: int, state: StepState) -> None:
        """Write the state of a step, including the lines of metrics.jsonl.

        The state before is kept until the step is finished and its files are read back.
        """
        metrics = self.folder / METRICS
        state.metrics = metrics.read_text(encoding="utf-8", errors="replace") if metrics.is_file() else ""
        path, before = self.step_folder(step) / STATE, self.state_path(step, STATE_BEFORE)
        with self.manifest.writing(path, keep=before) as partial, partial.open("wb") as file:
            torch.save(state.to_dict(), file)
        if state.finished:
            for written in (path, self.segmenter_path(step)):
                self.manifest.check(written)
            self.remove(before)

    def load_state(self, step: int, name: str = STATE) -> StepState | None:
        """The last saved state of a step, or None; `STATE_BEFORE` is the one before.

        Raises:
            ContsegError: the file is damaged, or is not a `StepState`.
        """
        path = self.state_path(step, name)
        if not path.is_file():
            return None
        self.manifest.check(path, f"resume the run from an earlier state with: contseg train --resume {self.folder}")
        try:
            return StepState.from_dict(read_pickle(path))
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:120]
            raise ContsegError(f"{path}: cannot be read ({reason}); delete it to repeat step {step}") from None

    def remove(self, path: Path) -> None:
        """Delete a file of the run, if it exists."""
        path.unlink(missing_ok=True)
        self.manifest.forget(path)

    def last_begun(self) -> int:
        """The last step with a saved state, or -1. Every step before it is finished; their states are no longer needed.

        Raises:
            ContsegError: the plan lacks this step.
        """
        found = [path for name in (STATE, STATE_BEFORE) for path in self.folder.glob(f"steps/*/{name}") if path.is_file()]
        return self._planned(max((int(path.parent.name) for path in found if path.parent.name.isdecimal()), default=-1))

    def is_finished(self, steps: int) -> bool:
        """Whether the last of so many steps is finished."""
        return self.last_begun() == steps - 1 and (state := self.load_state(steps - 1)) is not None and state.finished

    def is_past_first_step(self) -> bool:
        """Whether step 0 is finished; not if its state is damaged, as a resume repeats the step."""
        if self.last_begun():
            return self.last_begun() > 0
        try:
            state = self.load_state(0)
        except ContsegError:
            return False
        return state is not None and state.finished

    def rewind_metrics(self, state: StepState | None) -> None:
        """Restore metrics.jsonl as it was when this state was written; None empties it."""
        path = self.folder / METRICS
        found = path.read_bytes() if path.is_file() else b""
        kept = lines_at(state, found) if state else b""
        if kept != found:
            with atomic.atomic_file(path) as partial:
                partial.write_bytes(kept)
            self.manifest.record(path, grows=True)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json, and record metrics.jsonl, which grows no more."""
        if (self.folder / METRICS).is_file():
            self.manifest.record(self.folder / METRICS)
        self.write_text("summary.json", json.dumps(summary, indent=1))

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write a compressed .npz in the run's folder atomically."""
        path = self.folder / name
        with atomic.writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self.manifest.writing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file that `save_arrays` wrote.

        Raises:
            ContsegError: the file is missing or damaged (with the command that writes it again).
        """
        path = self.folder / name
        problem = "is damaged" if path.is_file() else "is missing"
        with suppress(OSError, ValueError):
            if self.manifest.is_sound(path) and belong(arrays := read_arrays(path), path):
                return arrays
        raise ContsegError(f"{path}: {problem}; make it again with: contseg train --resume {self.folder}")

    def is_readable(self, name: str) -> bool:
        """Whether `arrays` can read a file."""
        try:
            return bool(self.arrays(name))
        except ContsegError:
            return False

    def finished_steps(self) -> int:
        """Number of finished steps, determined from several files, as some may be lost or damaged.

        Raises:
            ContsegError: it is more than the plan has.
        """
        written = {self.folder / name for name in self.manifest.entries()} | {*self.folder.glob("steps/*/confusion.npz")}
        steps = [path.parent.name for path in written if path.name == "confusion.npz"]
        there = [int(name) for name in steps if name.isdecimal()]
        with suppress(ContsegError):
            there += [line["step"] for line in self.metrics() if line["kind"] == "step"]
        with suppress(ContsegError, KeyError, TypeError):
            there += range((self.summary() or {})["steps"])[-1:]
        return self._planned(max((step for step in there if isinstance(step, int)), default=-1)) + 1

    def _planned(self, step: int) -> int:
        """The step, after a check that the plan has it."""
        with suppress(KeyError, TypeError):
            if step >= (steps := len((self.plan() or {})["steps"])):
                place = self.folder / "steps" / f"{step:02d}"
                raise ContsegError(f"{place}: is not of this run, whose plan has {steps} steps; move what is there away")
        return step

    def confusion(self, step: int) -> np.ndarray:
        """The confusion matrix after a step.

        Raises:
            ContsegError: see `arrays`.
        """
        return self._measured(step)["confusion"]

    def confusions(self) -> list[np.ndarray]:
        """The confusion matrix after each finished step.

        Raises:
            ContsegError: the matrix of a finished step is missing or damaged.
        """
        return [self.confusion(step) for step in range(self.finished_steps())]

    def groups(self) -> tuple[int, ...]:
        """The step that added each class, by which metrics are grouped."""
        return tuple(int(value) for value in self._measured(0)["groups"])

    def has_background(self) -> bool:
        """Whether the first class is background, which most metrics exclude."""
        return bool(self._measured(0)["background"])

    def tested(self) -> tuple[tuple[str, ...], np.ndarray | None]:
        """The classes after the last finished step, and which of them occur in the masks (bool); () and None for runs of
        earlier versions.

        Raises:
            ContsegError: see `arrays`.
        """
        saved = self._measured(self.finished_steps() - 1)
        if "annotated" not in saved:
            return (), None
        return tuple(str(name) for name in saved["names"]), saved["annotated"]

    def domain_confusions(self) -> tuple[tuple[str, ...], list[np.ndarray]]:
        """The domains of the scenario, and the confusion matrices (domains, K, K) after each finished step."""
        saved = [self._measured(step) for step in range(self.finished_steps())]
        names = tuple(str(name) for name in saved[-1]["domains"]) if saved else ()
        return names, [each["by_domain"] for each in saved]

    def _measured(self, step: int) -> dict[str, np.ndarray]:
        return self.arrays(f"steps/{step:02d}/confusion.npz")

    def plan(self) -> dict[str, Any] | None:
        """plan.json, or None before it is written.

        Raises:
            ContsegError: the file is damaged.
        """
        return self._json("plan.json", "restore the file that this run wrote")

    @property
    def plan_hash(self) -> str:
        """The hash in plan.json, or "" before it is written."""
        return (self.plan() or {}).get("hash", "")

    def require_plan(self) -> dict[str, Any]:
        """plan.json, which a report needs.

        Raises:
            ContsegError: the file is missing or damaged.
        """
        plan = self.plan()
        if plan is None:
            path = self.folder / "plan.json"
            raise ContsegError(f"{path}: is missing; make it again with: contseg train --resume {self.folder}")
        if not {"steps", "warnings"} <= plan.keys() or not all(isinstance(step, dict) for step in plan["steps"]):
            raise ContsegError(f"{self.folder / 'plan.json'}: not a plan; restore the file that this run wrote")
        return plan

    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is not finished.

        Raises:
            ContsegError: the file is damaged.
        """
        return self._json("summary.json", f"make it again with: contseg train --resume {self.folder}")

    def environment(self) -> dict[str, Any]:
        """environment.json; {} before it is written.

        Raises:
            ContsegError: the file is damaged.
        """
        name, advice = "environment.json", f"make it again with: contseg train --resume {self.folder}"
        self.manifest.check(self.folder / name, advice)
        return self._json(name, advice) or {}

    def _json(self, name: str, advice: str) -> dict[str, Any] | None:
        path = self.folder / name
        if not path.is_file():
            return None
        self.manifest.check(path, advice)
        try:
            if isinstance(content := json.loads(path.read_text(encoding="utf-8")), dict):
                return content
            raise ValueError(f"a {type(content).__name__} in place of keys")
        except (ValueError, RecursionError) as error:
            raise ContsegError(f"{path}: not JSON ({str(error)[:120]}); {advice}") from None

"""The folder of a run, with everything that a resume or a report needs."""

import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contseg import atomic
from contseg.data.classes import ClassTable
from contseg.engine.step_state import StepState
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import save_segmenter
from contseg.models.segmenter import Segmenter

FILES = (
    "recipe.yaml", "plan.json", "environment.json", "metrics.jsonl", "samples.npz", "summary.json", "report.html", "log.txt",
    "maps.npz",
)  # fmt: skip
FOLDERS = ("steps", "tensorboard")
MAPS = "maps.npz"
STEP_ARRAYS = ("confusion.npz", "predictions.npz")
"""Files of a step that can be computed again from its segmenter and the test set."""


class Run:
    """The folder of a run.

    Layout:

        recipe.yaml                     the resolved recipe
        plan.json                       images per step, pixels per class, digests of both, plan hash; of the data at the
                                        start of the run
        environment.json                versions and machine
        metrics.jsonl                   one line per epoch (`kind: epoch`: losses, rate, speed, pseudo labels) and per step
                                        (`kind: step`: metrics, warnings)
        samples.npz                     a few test images and their labels, class names and colours, for the report
        steps/03/segmenter.safetensors  the segmenter after step 3, with its classes
        steps/03/state.pt               a `StepState`: of a step in training, weights, optimiser, the method's state and the
                                        best epoch so far; of a finished step, the method's state
        steps/03/confusion.npz          the confusion matrix on the step's test set, also per domain; of each class its name,
                                        its step, and whether the masks label it; whether the first is background; names of
                                        the domains
        steps/03/predictions.npz        predictions for the sample images
        maps.npz                        `contseg demo` on the globe: the Earth, its truth and the map after each step
        summary.json                    the metrics of the run; written when the run is finished
        report.html                     the report, written by the commands `train` and `report`
        tensorboard/                    events made from metrics.jsonl after every step, where the extra is installed
        log.txt                         output of the process of a run that `contseg demo` trains alongside others

    A resume reads `state.pt` of the step, the segmenter of the step before, and everything else from the recipe. It
    compares the data with `plan.json`.

    Ctrl-C and SIGTERM lose nothing: the current update is finished and saved, also in the middle of an epoch. A kill loses
    at most the current epoch: every file except `metrics.jsonl` is written atomically, and `state.pt`, written last,
    contains the length of `metrics.jsonl`, to which a resume truncates it.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

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

    def refuse_if_taken(self, overwrite: bool = False) -> None:
        """Raise ContsegError unless a new run may be created here.

        Raises:
            ContsegError: the folder contains a run and `overwrite` is False, or it contains other files.
        """
        if self.folder.is_file():
            raise ContsegError(f"{self.folder}: is a file; choose another folder with --out")
        if self.folder.exists() and any(self.folder.iterdir()):
            if not (self.folder / "recipe.yaml").is_file():
                raise ContsegError(f"{self.folder}: is not empty and contains no run; choose another folder with --out")
            if not overwrite:
                raise ContsegError(
                    f"{self.folder}: contains a run already; continue it with --resume {self.folder}, or use --overwrite"
                )

    def create(self, overwrite: bool = False) -> None:
        """Create the folder. Of an overwritten run, only the files of the layout are deleted.

        Raises:
            ContsegError: see `refuse_if_taken`.
        """
        self.refuse_if_taken(overwrite)
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in reversed(FILES):  # the recipe last: after a kill the folder is still a run and can be overwritten
            (self.folder / name).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def would_delete(self, path: Path) -> bool:
        """Whether `create` deletes a file or folder, or one of the run files in it."""
        path, place = path.resolve(), self.folder.resolve()
        return path == place or any(path.is_relative_to(place / name) for name in (*FILES, *FOLDERS))

    def require(self) -> "Run":
        """This run, after a check that the folder contains one.

        Raises:
            ContsegError: the folder contains no run.
        """
        if not (self.folder / "recipe.yaml").is_file():
            raise ContsegError(f"{self.folder}: contains no run (recipe.yaml is missing)")
        return self

    def step_folder(self, step: int) -> Path:
        """`steps/NN`, created if missing."""
        folder = self.folder / "steps" / f"{step:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def segmenter_path(self, step: int) -> Path:
        """The segmenter at the end of a step."""
        return self.folder / "steps" / f"{step:02d}" / "segmenter.safetensors"

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run atomically."""
        atomic.write_text(self.folder / name, text)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]

    def save_segmenter(self, step: int, segmenter: Segmenter, classes: ClassTable, source: dict[str, Any]) -> None:
        """Write the segmenter of a step; see `contseg.interop.segmenter_file.save_segmenter`."""
        save_segmenter(self.step_folder(step) / "segmenter.safetensors", segmenter, classes, source)

    def save_state(self, step: int, state: StepState) -> None:
        """Write the state of a step, including the current length of metrics.jsonl."""
        metrics = self.folder / "metrics.jsonl"
        state.metrics_bytes = metrics.stat().st_size if metrics.is_file() else 0
        path = self.step_folder(step) / "state.pt"
        with atomic.atomic_file(path) as partial:
            torch.save(state.to_dict(), partial)

    def load_state(self, step: int) -> StepState | None:
        """The last saved state of a step, or None.

        Raises:
            ContsegError: the file is damaged, or is not a `StepState`.
        """
        path = self.folder / "steps" / f"{step:02d}" / "state.pt"
        if not path.is_file():
            return None
        try:
            return StepState.from_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:120]
            raise ContsegError(f"{path}: cannot be read ({reason}); delete it to repeat step {step}") from None

    def last_begun(self) -> int:
        """The last step with a saved state, or -1. Every step before it is finished; their states are no longer needed."""
        found = [int(path.parent.name) for path in self.folder.glob("steps/*/state.pt") if path.parent.name.isdigit()]
        return max(found, default=-1)

    def is_past_first_step(self) -> bool:
        """Whether step 0 is finished.

        Raises:
            ContsegError: see `load_state`.
        """
        if self.last_begun():
            return self.last_begun() > 0
        state = self.load_state(0)
        return state is not None and state.finished

    def rewind_metrics(self, state: StepState | None) -> None:
        """Delete the metric lines that were written after this state."""
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            os.truncate(path, state.metrics_bytes if state else 0)

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write a compressed .npz in the run's folder atomically."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.atomic_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file that `save_arrays` wrote.

        Raises:
            ContsegError: the file is missing or damaged (with the command that writes it again).
        """
        path = self.folder / name
        try:
            with np.load(path) as saved:
                return dict(saved)
        except FileNotFoundError:
            problem = "is missing"
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
            # NotImplementedError: zipfile, for a flag set by damage
            problem = "is damaged"
        raise ContsegError(f"{path}: {problem}; make it again with: contseg train --resume {self.folder}")

    def is_readable(self, name: str) -> bool:
        """Whether `arrays` can read a file."""
        try:
            return bool(self.arrays(name))
        except ContsegError:
            return False

    def finished_steps(self) -> int:
        """Number of finished steps, determined from several files, as some may be lost."""
        folder = self.folder / "steps"
        there = [int(path.parent.name) for path in folder.glob("*/confusion.npz") if path.parent.name.isdigit()]
        measured = [line["step"] for line in self.metrics() if line["kind"] == "step"]
        summary = self.summary() or {}
        return max([*there, *measured, summary.get("steps", 0) - 1], default=-1) + 1

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
        path = self.folder / "plan.json"
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ContsegError(f"{path}: not JSON ({str(error)[:120]}); restore the file that this run wrote") from None

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
        return plan

    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is not finished."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


class ReadOnlyRun(Run):
    """The run on ranks other than 0: reading works as usual, writing does nothing."""

    def write_text(self, name: str, text: str) -> None:
        pass

    def append_metrics(self, line: dict[str, Any]) -> None:
        pass

    def rewind_metrics(self, state: StepState | None) -> None:
        pass

    def save_segmenter(self, step: int, segmenter: Segmenter, classes: ClassTable, source: dict[str, Any]) -> None:
        pass

    def save_state(self, step: int, state: StepState) -> None:
        pass

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        pass

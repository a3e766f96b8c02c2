"""A run: the folder in which a continual training leaves everything that a report shows."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contseg.errors import ContsegError

FILES = (
    "recipe.yaml", "plan.json", "environment.json", "metrics.jsonl", "samples.npz", "summary.json", "report.html", "log.txt",
)  # fmt: skip
FOLDERS = ("steps", "tensorboard")


class Run:
    """The folder of a run.

    Layout:

        recipe.yaml                     as resolved
        plan.json                       images per step, pixels per class, plan hash
        environment.json                versions and machine
        metrics.jsonl                   one line per epoch (`kind: epoch`: losses, pseudo labels) and per step (`kind: step`:
                                        figures, warnings)
        samples.npz                     a few test images and their truth, for the report
        steps/03/segmenter.safetensors  the segmenter after step 3, with its classes
        steps/03/state.pt               where training stands; all of a resume
        steps/03/confusion.npz          the confusion matrix on the step's test set, also per domain, and class groups
        steps/03/predictions.npz        predictions for the sample images
        summary.json                    the figures at the end; its presence means that the run is finished

    Ctrl-C and SIGTERM lose nothing: the update that is being made is saved, in the middle of an epoch too. A kill at any
    moment loses the current epoch at most: every file appears whole or not at all, `state.pt` is written
    last and says how long `metrics.jsonl` was, which is cut back to that on resume.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def refuse_if_taken(self, overwrite: bool = False) -> None:
        """Nothing, if a new run may be made here.

        Raises:
            ContsegError: the folder holds a run already and `overwrite` is False, or it holds something else.
        """
        if self.folder.is_file():
            raise ContsegError(f"{self.folder}: is a file; choose another folder with --out")
        if self.folder.exists() and any(self.folder.iterdir()):
            if not (self.folder / "recipe.yaml").is_file():
                raise ContsegError(f"{self.folder}: is not empty and holds no run; choose another folder with --out")
            if not overwrite:
                raise ContsegError(
                    f"{self.folder}: holds a run already; continue it with --resume {self.folder}, or --overwrite"
                )

    def create(self, overwrite: bool = False) -> None:
        """Make the folder; of a run that is overwritten, only what a run writes is deleted.

        Raises:
            ContsegError: see `refuse_if_taken`.
        """
        self.refuse_if_taken(overwrite)
        for name in FILES:
            (self.folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def require(self) -> "Run":
        """This run, if it is one.

        Raises:
            ContsegError: the folder holds no run.
        """
        if not (self.folder / "recipe.yaml").is_file():
            raise ContsegError(f"{self.folder}: holds no run (recipe.yaml is missing)")
        return self

    def step_folder(self, step: int) -> Path:
        """`steps/NN`, made if missing."""
        folder = self.folder / "steps" / f"{step:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def segmenter_path(self, step: int) -> Path:
        """The segmenter at the end of a step."""
        return self.folder / "steps" / f"{step:02d}" / "segmenter.safetensors"

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run; it appears whole or not at all."""
        partial = self.folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.folder / name)

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

    def save_state(self, step: int, state: dict[str, Any]) -> None:
        """Write where training stands (tensors and plain types only)."""
        metrics = self.folder / "metrics.jsonl"
        state = state | {"metrics_bytes": metrics.stat().st_size if metrics.is_file() else 0}
        path = self.step_folder(step) / "state.pt"
        partial = path.with_name("state.pt.partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load_state(self, step: int) -> dict[str, Any] | None:
        """What `save_state` wrote last, or None.

        Raises:
            ContsegError: the file is damaged.
        """
        path = self.folder / "steps" / f"{step:02d}" / "state.pt"
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:120]
            raise ContsegError(f"{path}: cannot be read ({reason}); delete it to repeat step {step}") from None

    def rewind_metrics(self, state: dict[str, Any] | None) -> None:
        """Forget metric lines written after this state."""
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            os.truncate(path, state["metrics_bytes"] if state else 0)

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write a compressed .npz under the run's folder; it appears whole or not at all."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.partial.npz")
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)

    def confusions(self) -> list[np.ndarray]:
        """The confusion matrix after each finished step."""
        found: list[np.ndarray] = []
        while (path := self.folder / "steps" / f"{len(found):02d}" / "confusion.npz").is_file():
            with np.load(path) as saved:
                found.append(saved["confusion"])
        return found

    def groups(self) -> tuple[int, ...]:
        """The step that brought each class, as figures are grouped."""
        with np.load(self.folder / "steps" / "00" / "confusion.npz") as saved:
            return tuple(int(value) for value in saved["groups"])

    def has_background(self) -> bool:
        """Whether the first class is background, which figures leave out."""
        with np.load(self.folder / "steps" / "00" / "confusion.npz") as saved:
            return bool(saved["background"])

    def domain_confusions(self) -> tuple[tuple[str, ...], list[np.ndarray]]:
        """The domains of the scenario, and the confusion matrices (domains, K, K) after each finished step."""
        names: tuple[str, ...] = ()
        found: list[np.ndarray] = []
        while (path := self.folder / "steps" / f"{len(found):02d}" / "confusion.npz").is_file():
            with np.load(path) as saved:
                names = tuple(str(name) for name in saved["domains"])
                found.append(saved["by_domain"])
        return names, found

    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is not finished."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

"""Golden files: finding them, reading them, and comparing with them."""

import json
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from contseg.methods.method import Method, StepContext
from contseg.scenarios.step import Step
from tests.parity.fill import fill_image, fill_state

ROOT = Path(os.environ.get("CONTSEG_GOLDENS") or Path(__file__).parent / "goldens")


CLAIMS: list[tuple[str, Callable[["Golden"], None]]] = []
"""What checks which files: a pattern of `family/name`, and the check."""


def claims(pattern: str):
    """The check of the golden files whose `family/name` matches."""

    def register(check):
        CLAIMS.append((pattern, check))
        return check

    return register


class Golden:
    """One .npz: arrays as tensors, and its settings; or one .json: its settings alone."""

    def __init__(self, path: Path):
        self.path, self.family, self.arrays = path, path.parent.name, {}
        if path.suffix == ".json":
            self.meta = json.loads(path.read_text())
            return
        with np.load(path) as saved:
            self.arrays = dict(saved)
        self.meta = json.loads(str(self.arrays.pop("meta"))) if "meta" in self.arrays else {}

    def tensor(self, name: str, grad: bool = False) -> torch.Tensor:
        tensor = torch.from_numpy(self.arrays[name].copy())
        return tensor.requires_grad_() if grad else tensor

    def numbered(self, prefix: str, grad: bool = False) -> list[torch.Tensor]:
        """in_old0, in_old1, ... as a list."""
        names = [name for name in self.arrays if re.fullmatch(rf"{prefix}\d+", name)]
        return [self.tensor(name, grad) for name in sorted(names, key=lambda name: int(name.removeprefix(prefix)))]

    def check(self, name: str, value, tolerance: float = 1e-9) -> None:
        """Relative to the largest expected value, so that a gradient's zeros may be rounding."""
        expected = self.arrays[name]
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        assert value.shape == expected.shape, f"{name}: {value.shape} instead of {expected.shape}"
        finite = expected[np.isfinite(expected)] if expected.dtype.kind == "f" else expected
        scale = float(np.abs(finite).max()) if finite.size and expected.dtype.kind == "f" else 0.0
        if expected.dtype.kind != "f":
            tolerance = 0.0
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True, err_msg=name)

    def check_close(self, name: str, value: torch.Tensor, atol: float) -> None:
        """Absolutely."""
        np.testing.assert_allclose(value.detach().numpy(), self.arrays[name], rtol=0, atol=atol, err_msg=name)


def gradients(scalar: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(scalar, inputs, retain_graph=True))


def context_of(old_classes: int, new_classes: int = 0, student=None) -> StepContext:
    """What methods read in addition to outputs: the classes of a step, background first.

    Features of goldens are activated already. The default student copies them, as SDR adds a ReLU if nothing is activated.
    """
    student = student or SimpleNamespace(backbone=SimpleNamespace(activate=torch.clone))
    step = Step.of([*map(str, range(old_classes + new_classes))], old_classes)
    return StepContext.for_loop(student, None, step, Method())


def manifest_of(path: Path) -> Path:
    """The manifest whose name begins the golden's name."""
    fitting = [
        manifest
        for manifest in path.parent.glob("manifest_*.json")
        if path.stem.removeprefix("train_").startswith(manifest.stem.removeprefix("manifest_"))
    ]
    assert fitting, f"{path}: no manifest beside it"
    return max(fitting, key=lambda manifest: len(manifest.stem))


@lru_cache(maxsize=1)
def _filled(manifest: Path) -> dict[str, torch.Tensor]:
    rows = json.loads(manifest.read_text())
    return {name: torch.from_numpy(np.asarray(values)) for name, values in fill_state(rows).items()}


def network_state(golden: Golden) -> dict[str, torch.Tensor]:
    """The deterministic weights of a network golden, gain applied."""
    gains = golden.meta.get("gain", {})
    return {
        name: value * next((gain for suffix, gain in gains.items() if name.endswith(suffix)), 1)
        for name, value in _filled(manifest_of(golden.path)).items()
    }


def network_image(golden: Golden) -> torch.Tensor:
    image = golden.meta["image"]
    return torch.from_numpy(fill_image(tuple(image.get("fill_image_shape") or image["shape"]), image["seed"]))

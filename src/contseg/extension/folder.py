"""The folder of an extended model: checks before, and what is written next to the weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from contseg.digest import sha256
from contseg.engine.memory import peak_memory
from contseg.engine.teacher import statistics_beside
from contseg.errors import ContsegError
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.segmenter import Segmenter
from contseg.recipes.models import Opened

RECORD, PAGE = "result.json", "report.html"
Progress = Callable[[str, int, int], None]
"""Called with the current work, and how much of it is done, of how much."""


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def require_new(out: Path) -> None:
    """Raise ContsegError if something is at `out`.

    A model is written under another name and moved there when it is complete, so an interrupted command leaves nothing.

    Example:
        >>> require_new(Path("/"))
        Traceback (most recent call last):
        contseg.errors.ContsegError: /: exists already; choose a new folder with --out
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ContsegError(f"{out}: exists already; choose a new folder with --out")


def tensors_sha256(segmenter: Segmenter) -> str:
    """SHA-256 of all tensors of a segmenter with their names, independent of the file that they are in."""
    parts: list[str | bytes] = []
    for name, value in sorted(segmenter.state_dict().items()):
        plain = value.detach().cpu().contiguous()
        parts += [f"{name} {tuple(plain.shape)} {plain.dtype}", plain.reshape(-1).view(torch.uint8).numpy().tobytes()]
    return sha256(*parts)


def stored_sums(opened: Opened) -> GaussianSums | None:
    """The sums of the Gaussian head of a model, on its device, or None.

    Raises:
        ContsegError: the file is damaged, or was changed.
    """
    state = statistics_beside(opened.file) if opened.segmenter.options.readout is not None else {}
    if "description" not in state:
        return None
    try:
        return GaussianSums.from_state(state).to(opened.segmenter.mean.device)
    except ContsegError as error:
        raise ContsegError(f"{opened.file}: {error}") from None


def readout_of(opened: Opened) -> dict[str, Any]:
    """How the weights of a Gaussian head follow from its sums: as an extension recorded it, or as in the run."""
    method = {} if opened.recipe is None else opened.recipe.method
    named = {key: method[key] for key in ("rho", "prior") if key in method and method[key] != "auto"}
    return opened.source.get("readout", named)


def stored_mb(folder: Path) -> float:
    """Size of the model in a folder in megabytes: weights, statistics and description."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name not in (RECORD, PAGE)) / 1e6


def memory_mb() -> float | None:
    """The most memory that this process has used, in megabytes: of the GPU if there is one; None where it is unknown."""
    used = peak_memory(torch.cuda.is_available())
    return None if used is None else used / 1e6

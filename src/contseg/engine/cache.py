"""Step 0, shared between runs: many methods learn their first step alike, so it is learned once."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from contseg.engine.job import Job
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from contseg.models.segmenter import Segmenter


class StepCache:
    """Content-addressed results of step 0: `<folder>/<key>/{segmenter.safetensors, rest.pt}`.

    The key covers everything that influences the weights (`Job.first_step_key`), so a hit is what training would give.
    """

    def __init__(self, folder: Path | None, key: str):
        self._place = folder / key if folder else None

    def load(self, segmenter: Segmenter) -> dict[str, Any] | None:
        """Put the cached weights into a segmenter; returns what was stored with them, or None on a miss."""
        if self._place is None or not self._place.is_dir():
            return None
        cached, _ = load_segmenter(self._place / "segmenter.safetensors")
        segmenter.load_state_dict(cached.state_dict())
        return torch.load(self._place / "rest.pt", map_location="cpu", weights_only=True)

    def store(self, segmenter: Segmenter, job: Job, rest: dict[str, Any]) -> None:
        """Keep the result of step 0: weights, the method's state, the epochs' metric lines."""
        if self._place is None or self._place.is_dir():
            return
        partial = self._place.with_name(f"{self._place.name}.partial-{os.getpid()}")
        partial.mkdir(parents=True, exist_ok=True)
        save_segmenter(partial / "segmenter.safetensors", segmenter, job.scenario[0].table)
        torch.save(rest, partial / "rest.pt")
        try:
            partial.rename(self._place)
        except OSError:  # another run was faster
            shutil.rmtree(partial, ignore_errors=True)

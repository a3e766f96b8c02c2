"""A cache of step 0: methods with an identical first step share it."""

import shutil
from pathlib import Path
from typing import Any

import torch

from contseg.atomic import atomic_folder
from contseg.engine.job import Job
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from contseg.models.segmenter import Segmenter

FILES = ("segmenter.safetensors", "rest.pt")


class StepCache:
    """Content-addressed results of step 0: `<folder>/<key>/{segmenter.safetensors, rest.pt}`.

    The key covers everything that influences the weights: options, method, network, files, ranks, precision and code (see
    `Job.first_step_key`). A cached result equals that of training, up to rounding if it comes from another machine. Several
    processes may share a folder, as results are stored atomically.

    Args:
        folder: folder of all results, or None for a cache that is always empty.
        key: key of this result.
    """

    def __init__(self, folder: Path | None, key: str):
        self._place = folder / key if folder else None

    @property
    def filled(self) -> bool:
        """Whether there is a result to load; a partly deleted folder has none."""
        return self._place is not None and all((self._place / name).is_file() for name in FILES)

    def load(self, segmenter: Segmenter) -> dict[str, Any] | None:
        """Load the cached weights into a segmenter.

        Returns:
            the `rest` that was stored with them, or None without a result.

        Raises:
            ContsegError: the files are damaged.
        """
        if self._place is None or not self.filled:
            return None
        try:
            rest = torch.load(self._place / "rest.pt", map_location="cpu", weights_only=True)
            cached, _ = load_segmenter(self._place / "segmenter.safetensors")
        except Exception as error:  # torch raises many kinds for a damaged file
            if not self.filled:
                return None  # deleted while it was read
            reason = " ".join(str(error).split())[:120]
            raise ContsegError(
                f"{self._place}: a cached step 0 that cannot be read ({reason}); delete this folder"
            ) from None
        segmenter.load_state_dict(cached.state_dict())
        return rest

    def store(self, segmenter: Segmenter, job: Job, rest: dict[str, Any]) -> None:
        """Store the result of step 0, unless there is one.

        Args:
            rest: the state of the method and of the scaler, and the lines of metrics.jsonl, as tensors and plain types.
        """
        if self._place is None or self.filled:
            return
        with atomic_folder(self._place, shared=True) as partial:
            save_segmenter(partial / "segmenter.safetensors", segmenter, job.scenario[0].table)
            torch.save(rest, partial / "rest.pt")
            if not self.filled:  # `place` is a partly deleted folder, not the result of a faster run
                shutil.rmtree(self._place, ignore_errors=True)

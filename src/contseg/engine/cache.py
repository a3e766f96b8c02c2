"""A cache of step 0: methods with an identical first step share it."""

import re
import shutil
from pathlib import Path
from typing import Any

import torch

from contseg.archives import read_pickle
from contseg.atomic import atomic_folder
from contseg.engine.job import Job
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter, write_segmenter
from contseg.manifest import NAME, Manifest
from contseg.models.segmenter import Segmenter

FILES = ("segmenter.safetensors", "rest.pt")


class StepCache:
    """Content-addressed results of step 0: `<folder>/<key>/{segmenter.safetensors, rest.pt, manifest.json}`.

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

    def damage(self) -> str:
        """A line on a result that is damaged, and is deleted; else "".

        Call it before `load`, in one process.
        """
        if self._place is None or not self.filled:
            return ""
        try:
            manifest = Manifest(self._place)
            lost = [name for name in FILES if name not in manifest.entries() or not manifest.is_sound(self._place / name)]
        except ContsegError:
            lost = [NAME]
        if not lost:
            return ""
        shutil.rmtree(self._place, ignore_errors=True)
        return f"{self._place / lost[0]}: damaged; step 0 is not taken from the cache"

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
            rest = read_pickle(self._place / "rest.pt")
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

        Raises:
            UnwritableError: the disk is full, or the cache is read-only.
        """
        if self._place is None or self.filled:
            return
        with atomic_folder(self._place, shared=True) as partial:
            paths = [partial / name for name in FILES]
            write_segmenter(paths[0], segmenter, job.scenario[0].table)
            with paths[1].open("wb") as file:
                torch.save(rest, file)
            Manifest(partial).record(*paths)
            if not self.filled:  # `place` is a partly deleted folder, not the result of a faster run
                shutil.rmtree(self._place, ignore_errors=True)


def delete_results(folder: Path) -> None:
    """Delete all results in the folder of a cache, complete or not; nothing else."""
    for place in folder.glob("*"):
        if re.fullmatch(r"[0-9a-f]{64}(\.[0-9a-f]{12}(\.contseg-|\.)partial)?", place.name):
            shutil.rmtree(place, ignore_errors=True)

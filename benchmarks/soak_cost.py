"""What checksums and syncs cost: their share of an epoch of the demo. `python -m benchmarks.soak_cost` prints JSON."""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contseg import atomic, manifest
from contseg.engine.job import Reporter
from contseg.manifest import Manifest
from contseg.recipes.read import read_recipe
from tests.engine.runs import learn

RECIPE = "globe/mib_4-1"
EPOCHS = 3


class Watch(Reporter):
    """Measures epochs, and what checksums and syncs take of them."""

    def __init__(self) -> None:
        self.depth, self.spent = 0, 0.0
        self.epochs: list[tuple[float, float]] = []
        self._last = (0.0, 0.0)

    def step_started(self, *_: Any) -> None:
        self._last = (time.perf_counter(), self.spent)

    def epoch_finished(self, *_: Any) -> None:
        before, self._last = self._last, (time.perf_counter(), self.spent)
        self.epochs.append((self._last[0] - before[0], self._last[1] - before[1]))

    def timed(self, function: Callable) -> Callable:
        """The function, whose time is added to `spent` unless another one that is timed calls it."""

        def measured(*arguments: Any) -> Any:
            with self.running():
                return function(*arguments)

        return measured

    @contextmanager
    def running(self):
        started, self.depth = time.perf_counter(), self.depth + 1
        try:
            yield
        finally:
            self.depth -= 1
            if not self.depth:
                self.spent += time.perf_counter() - started


def measure() -> dict[str, float | str]:
    """Train some epochs of the demo; returns the seconds of an epoch and those of checksums, manifests and syncs in it."""
    watch, changing = Watch(), Manifest._changing

    @contextmanager
    def timed_changing(self: Manifest):
        with watch.running(), changing(self) as files:
            yield files

    Manifest._changing = timed_changing  # type: ignore[method-assign]
    Manifest.check = watch.timed(Manifest.check)  # type: ignore[method-assign]
    manifest.file_sha256 = watch.timed(manifest.file_sha256)
    atomic._sync, atomic._sync_folder = watch.timed(atomic._sync), watch.timed(atomic._sync_folder)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        learn(Path(folder) / "run", read_recipe(RECIPE, [f"training.epochs=[{EPOCHS}, 1]"]), reporter=watch)
    seconds, spent = (sum(one[part] for one in watch.epochs) / len(watch.epochs) for part in (0, 1))
    return {"recipe": RECIPE, "epochs": len(watch.epochs), "seconds": seconds, "spent": spent}


if __name__ == "__main__":
    json.dump(measure(), sys.stdout)

"""TensorBoard events in the folder `tensorboard/` of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from contseg.engine.loggers.logger import Point
from contseg.engine.run import Run


class TensorBoard:
    """Writes events. A process that resumes a run writes all of them again, so that no point is there twice."""

    def open(self, run: Run, recipe: Mapping[str, Any], known: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            run.remove(old)
        self._writer = SummaryWriter(str(folder))
        self._writer.flush()
        run.manifest.record(*folder.glob("events.out.tfevents.*"), grows=True)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.position)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()

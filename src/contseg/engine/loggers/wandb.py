"""Weights & Biases, if the extra `wandb` is installed; its environment variables choose mode, project and folder."""

import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from contseg.engine.loggers.logger import Point
from contseg.engine.run import Run

WAIT = 60.0
"""Seconds that the last uploads may take."""


class WeightsAndBiases:
    """Logs to a run of Weights & Biases, whose files are in `wandb/` of the run's folder unless `WANDB_DIR` is set.

    The project is `contseg` unless `WANDB_PROJECT` is set. Nothing is printed, and no source code is recorded.
    """

    def open(self, run: Run, recipe: Mapping[str, Any], known: str | None) -> str:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "contseg"),
            name=os.environ.get("WANDB_NAME", run.folder.name),
            dir=os.environ.get("WANDB_DIR", run.folder),
            config=dict(recipe),
            id=known or uuid.uuid4().hex[:8],
            resume="allow",
            reinit="create_new",  # a process may train several runs
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                finish_timeout=WAIT,
                finish_timeout_raises=True,
            ),
        )
        for axis, names in (("epoch", ("train/*", "pseudo/*")), ("step", ("test/*",))):
            self._run.define_metric(axis)
            for name in names:
                self._run.define_metric(name, step_metric=axis)
        return self._run.id

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log({point.axis: point.position, **point.values}, step=point.line)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)

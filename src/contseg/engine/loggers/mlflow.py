"""MLflow, if the extra `mlflow` is installed; `MLFLOW_TRACKING_URI` chooses the store."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from contseg.differences import flat
from contseg.engine.loggers.logger import Point
from contseg.engine.run import Run

LONGEST = 500
"""Characters of a parameter that every store accepts."""
BATCH = 100
"""Parameters that a store accepts at once."""


class MLflow:
    """Logs to a run of MLflow, in the store `mlruns/` of the run's folder unless `MLFLOW_TRACKING_URI` is set.

    The experiment is `contseg` unless `MLFLOW_EXPERIMENT_NAME` is set.
    """

    def open(self, run: Run, recipe: Mapping[str, Any], known: str | None) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow refuses folders otherwise
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is down must not delay training
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        place = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder / "mlruns").resolve().as_uri()
        self._client = MlflowClient(tracking_uri=place)
        if known is not None:
            with suppress(MlflowException):  # another store, or deleted there
                self._client.update_run(known, status="RUNNING")
                self._id = known
                return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "contseg")
        experiment = self._client.get_experiment_by_name(name)
        try:
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        except MlflowException:
            if (experiment := self._client.get_experiment_by_name(name)) is None:
                raise
            number = experiment.experiment_id  # another process has just created it
        self._id = self._client.create_run(number, run_name=run.folder.name).info.run_id
        params = [Param(key, str(value)[:LONGEST]) for key, value in flat(dict(recipe))]
        for start in range(0, len(params), BATCH):
            self._client.log_batch(self._id, params=params[start : start + BATCH])
        return self._id

    def log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for point in points:
            named = {re.sub(r"[^\w./ -]", "_", name): value for name, value in point.values.items()}
            self._client.log_batch(self._id, [Metric(name, value, now, point.position) for name, value in named.items()])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")

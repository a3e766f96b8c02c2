"""The loggers of a run: they follow metrics.jsonl, and never end a training."""

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contseg.engine.loggers.logger import Logger, Point, points
from contseg.engine.loggers.mlflow import MLflow
from contseg.engine.loggers.tensorboard import TensorBoard
from contseg.engine.loggers.wandb import WeightsAndBiases
from contseg.engine.run import LOGGERS, Run
from contseg.errors import ContsegError

KINDS: dict[str, Callable[[], Logger]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def require_loggers(names: Sequence[str]) -> None:
    """Raise ContsegError unless the packages of loggers are installed. TensorBoard, the default, is left out without it.

    Raises:
        ContsegError: a package is missing (names the extra).
    """
    for name in names:
        if name != "tensorboard" and not is_installed(name):
            raise ContsegError(f"training.loggers: {name} is not installed; pip install 'contseg[{name}]'")


class Loggers:
    """Sends each line of metrics.jsonl once to each logger.

    `loggers.json` in the folder has, for loggers that continue after a resume, the name of their run and the number of
    lines that they have. It is written before the lines are sent, so that after a kill no point is there twice.

    Args:
        run: its folder.
        names: of loggers, see `KINDS`.
        recipe: the resolved recipe.
        warn: receives one line about a logger that failed, which is then left out.
    """

    def __init__(self, run: Run, names: Sequence[str], recipe: Mapping[str, Any], warn: Callable[[str], None]):
        self._run, self._recipe, self._warn = run, recipe, warn
        self._waiting = [name for name in names if is_installed(name)]
        self._loggers: dict[str, Logger] = {}
        self._sent: dict[str, int] = {}

    def update(self) -> None:
        """Send the lines that are new. A logger is opened with its first line."""
        if not self._waiting and not self._loggers:
            return
        found = points(self._run.metrics())
        for name in [*self._waiting, *self._loggers]:
            self._attempt(name, self._send, name, found)

    def close(self) -> None:
        """End all loggers."""
        finished = (self._run.folder / "summary.json").is_file()
        for name, logger in list(self._loggers.items()):
            self._attempt(name, logger.close, finished)

    def _send(self, name: str, found: Sequence[Point]) -> None:
        if name in self._waiting:
            known = self._saved().get(name, {})
            if known.get("lines", 0) >= _end(found):
                return
            self._waiting.remove(name)
            logger = KINDS[name]()
            opened = logger.open(self._run, self._recipe, known.get("run"))
            self._loggers[name] = logger
            self._sent[name] = known["lines"] if opened is not None and opened == known.get("run") else 0
            self._save(name, opened)
        new = [point for point in found if point.line >= self._sent[name]]
        before, self._sent[name] = self._sent[name], _end(found)
        self._save(name)
        try:
            self._loggers[name].log(new)
        except BaseException:
            self._sent[name] = before  # a resume sends them again
            self._save(name)
            raise

    def _attempt(self, name: str, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # loggers raise errors of their own kinds, and none may stop a run
            self._loggers.pop(name, None)
            self._waiting = [other for other in self._waiting if other != name]
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._warn(f"warning: logger {name} failed ({reason}); training continues without it")

    def _saved(self) -> dict[str, Any]:
        path = self._run.folder / LOGGERS
        if not path.is_file():
            return {}
        self._run.manifest.check(path, "delete it, so that the loggers begin again")
        return json.loads(path.read_text(encoding="utf-8"))

    def _save(self, name: str, opened: str | None = None) -> None:
        """Write loggers.json, for a logger that can be continued."""
        saved = self._saved()
        if opened is not None:
            saved[name] = {"run": opened}
        if name in saved:
            saved[name]["lines"] = self._sent[name]
            self._run.write_text(LOGGERS, json.dumps(saved, indent=1))


def _end(found: Sequence[Point]) -> int:
    """Number of lines up to the last point."""
    return found[-1].line + 1 if found else 0

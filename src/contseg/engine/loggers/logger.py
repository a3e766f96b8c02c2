"""The interface of loggers, and the curves that they show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from contseg.engine.run import Run


@dataclass(frozen=True)
class Point:
    """What a line of metrics.jsonl adds to the curves of a run.

    Args:
        line: its index in metrics.jsonl.
        axis: what `position` counts: epochs, over all steps, or steps.
        position: 0-based.
        values: by name: `train/loss`, `train/lr`, `train/TERM` and `pseudo/LABEL` (percent of the pixels) of an epoch;
            `test/old`, `test/new`, `test/all` and `test/all_with_background` (percent) of a step.
    """

    line: int
    axis: Literal["epoch", "step"]
    position: int
    values: Mapping[str, float]


class Logger(Protocol):
    """A program that draws curves, such as TensorBoard. Any method may raise any exception; training then continues."""

    def open(self, run: Run, recipe: Mapping[str, Any], known: str | None) -> str | None:
        """Begin, or continue what an earlier process began for this run.

        Args:
            recipe: the resolved recipe.
            known: what this method returned in an earlier process.

        Returns:
            a name under which it can be continued; another name than `known`, or None, if it has no points yet.
        """

    def log(self, points: Sequence[Point]) -> None:
        """Add points, in the order of their lines."""

    def close(self, finished: bool) -> None:
        """End; `finished` is whether the run is finished."""


def points(lines: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The points of the lines of metrics.jsonl.

    Example:
        >>> step = {"kind": "step", "step": 0, "old": 0.5, "new": None, "all": 0.5, "all_with_background": 0.75}
        >>> epoch = {"kind": "epoch", "loss": 2.0, "lr": 0.1, "terms": {}}
        >>> for point in points([epoch, step, epoch]):
        ...     print(point.line, point.axis, point.position, point.values)
        0 epoch 0 {'train/loss': 2.0, 'train/lr': 0.1}
        1 step 0 {'test/old': 50.0, 'test/all': 50.0, 'test/all_with_background': 75.0}
        2 epoch 1 {'train/loss': 2.0, 'train/lr': 0.1}
    """
    found: list[Point] = []
    labels: dict[str, None] = {}
    epochs = 0
    for number, line in enumerate(lines):
        if line["kind"] == "epoch":
            values = {"train/loss": line["loss"], "train/lr": line["lr"]}
            values |= {f"train/{name}": value for name, value in line["terms"].items()}
            if "pseudo" in line:
                labels |= dict.fromkeys(line["pseudo"])
                values |= {f"pseudo/{name}": 100 * line["pseudo"].get(name, 0.0) for name in labels}
            found.append(Point(number, "epoch", epochs, values))
            epochs += 1
        elif line["kind"] == "step":
            names = [name for name in ("old", "new", "all", "all_with_background") if line[name] is not None]
            found.append(Point(number, "step", line["step"], {f"test/{name}": 100 * line[name] for name in names}))
    return found

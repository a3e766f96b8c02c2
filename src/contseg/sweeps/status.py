"""What the runs of a sweep do at the moment, as far as the files in their folders show."""

from dataclasses import dataclass
from typing import Any, Literal

from contseg.errors import ContsegError
from contseg.lock import OF_RUN, Owner, is_owned
from contseg.sweeps.cells import Cell
from contseg.sweeps.failures import Failure

State = Literal["done", "running", "waiting", "failed"]


@dataclass(frozen=True)
class Status:
    """The state of a run.

    Attributes:
        cell: the run.
        state: `waiting` also if it was cut off and will be continued.
        step, steps: the current step, 0-based, and the number of steps; -1 and 0 before the run has begun.
        epoch, epochs: finished epochs of the current step, and their number.
        loss: mean of the last epoch; None before.
        left: estimated seconds of training; None if unknown.
        note: who trains it, why it failed, or its result.
    """

    cell: Cell
    state: State
    step: int = -1
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    left: float | None = None
    note: str = ""


def status_of(cell: Cell) -> Status:
    """The state of a run; nothing is changed."""
    owned = is_owned(cell.folder)  # first, as an owner finishes a run before it leaves
    try:
        summary, lines, plan = cell.run.summary(), cell.run.metrics(), cell.run.plan()
    except ContsegError as error:
        return Status(cell, "failed", note=str(error))
    if summary is not None and not owned:
        figures = (f"{key} {summary[key]:.1f}" for key in ("old", "new", "all") if summary.get(key) is not None)
        return Status(cell, "done", steps=summary.get("steps", 0), note="  ".join(figures))
    if not owned and (failure := Failure.of(cell.folder)):
        return Status(cell, "failed", note=failure.error, **_place(cell, lines, plan))
    owner = Owner.of(cell.folder / OF_RUN) if owned else None
    note = f"process {owner.process} on {owner.host}" if owner else ""
    place = _place(cell, lines, plan)
    if owned:
        place["left"] = _left(cell, lines, plan)
    return Status(cell, "running" if owned else "waiting", note=note, **place)


def _place(cell: Cell, lines: list[dict[str, Any]], plan: dict[str, Any] | None) -> dict[str, Any]:
    """Step, epoch and loss after the last line of metrics.jsonl."""
    if plan is None:
        return {}
    epochs = [line for line in lines if line["kind"] == "epoch"]
    step = max((line["step"] + 1 for line in lines if line["kind"] == "step"), default=0)
    step = min(step, len(plan["steps"]) - 1)
    return {
        "step": step,
        "steps": len(plan["steps"]),
        "epoch": sum(line["step"] == step for line in epochs),
        "epochs": cell.recipe.training.epochs_of(step),
        "loss": epochs[-1]["loss"] if epochs else None,
    }


def _left(cell: Cell, lines: list[dict[str, Any]], plan: dict[str, Any] | None) -> float | None:
    """Seconds for the images of the epochs that are left, at the speed of the epochs so far, without evaluation."""
    epochs = [line for line in lines if line["kind"] == "epoch"]
    if not epochs or plan is None:
        return None
    images = [step["train_images"] for step in plan["steps"]]
    spent = sum(images[line["step"]] / max(line["images_per_second"], 1e-9) for line in epochs)
    done = sum(images[line["step"]] for line in epochs)
    whole = sum(count * cell.recipe.training.epochs_of(step) for step, count in enumerate(images))
    return (whole - done) * spent / max(done, 1)


def statuses(cells: list[Cell]) -> list[Status]:
    """The states of all runs."""
    return [status_of(cell) for cell in cells]

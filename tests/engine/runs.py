"""Tiny runs, and what they leave behind: shared by the tests of engine, report and command line."""

import contextlib
import io
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contseg.cli.main import main
from contseg.data.classes import voc_palette
from contseg.data.files import write_palette_png
from contseg.engine.job import Job, Reporter
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.ewf import EWF, fused
from contseg.methods.method import Method
from contseg.methods.mib import MiB
from contseg.methods.registry import METHODS, RELEASED
from contseg.recipes.build import make_job, start_run
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from tests.conftest import TINY

CLOCKS = ("seconds", "images_per_second", "peak_memory")
"""What differs between two runs that are otherwise the same."""


def tiny_recipe(method: str = "plop", *overrides: str) -> Recipe:
    """Digits in two steps of five classes, 45 and 41 training images in batches of 10: four updates an epoch."""
    changes = [*TINY, "scenario.split=5-5", "training.batch=10", *overrides]
    recipe = read_recipe(f"digits/{method}_5-1", changes)
    if METHODS[recipe.method["name"]].updates_later_steps:
        return recipe
    return read_recipe(f"digits/{method}_5-1", [*changes, f"training.epochs=[{recipe.training.epochs_of(0)}, 0]"])


def without_dropout(method: str, *overrides: str) -> Recipe:
    """A tiny recipe whose head, if it has dropout, drops nothing."""
    recipe = tiny_recipe(method, *overrides)
    return tiny_recipe(method, *overrides, *["network.head.dropout=0.0"] * hasattr(recipe.network.head, "dropout"))


def job_in(folder: Path, recipe: Recipe, *, method: Method | None = None, cache: Path | None = None) -> Job:
    """The job of a new or a begun run; `method` stands in for the recipe's."""
    if not (folder / "recipe.yaml").is_file():
        start_run(recipe, folder)
    job = make_job(recipe, folder, cache=cache)
    return replace(job, method=method) if method else job


def learn(
    folder: Path,
    recipe: Recipe,
    *,
    method: Method | None = None,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    accept_changes: bool = False,
) -> Run:
    """Train in a folder; returns the run."""
    train(job_in(folder, recipe, method=method, cache=cache), reporter, accept_changes=accept_changes)
    return Run(folder)


COLOURS = ("background", "red", "green", "blue")


def folder_of_a_new_class(root: Path) -> list[str]:
    """Write six images of four classes whose masks label only the last one, `blue`; returns the overrides for them."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(6):
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[8:24, 8:24] = 3
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(root / "images" / f"{number}.png")
        write_palette_png(root / "masks" / f"{number}.png", mask, voc_palette())
    (root / "train.txt").write_text("0\n1\n2\n3\n")
    (root / "test.txt").write_text("4\n5\n")
    (root / "classes.txt").write_text("\n".join(COLOURS) + "\n")
    return ["data.dataset=folder", f"data.path={root}", "data.options={}", "scenario.split=2-1", "training.batch=2"]


def weights(run: Run, step: int = 1) -> dict[str, Tensor]:
    """The tensors of the segmenter after a step."""
    return load_segmenter(run.segmenter_path(step))[0].state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between two sets of weights."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def lines(run: Run, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    return [
        {key: value for key, value in line.items() if key not in CLOCKS}
        for line in run.metrics()
        if kind in (None, line["kind"])
    ]


class Watching(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.updates: list[int] = []
        self.notes: list[str] = []
        self.messages: list[str] = []

    def step_started(self, step: int, steps: int, classes: tuple[str, ...], updates: int, note: str = "") -> None:
        self.updates.append(0)
        self.notes.append(note)

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        self.updates[-1] += 1

    def message(self, text: str) -> None:
        self.messages.append(text)


class StoppedError(Exception):
    """What stands in for a kill."""


class Interrupting(Reporter):
    """Stops training at the n-th time that something happens (`updated`, `evaluated`, `step_finished`)."""

    def __init__(self, event: str, count: int):
        self.event, self.left = event, count

    def _see(self, event: str) -> None:
        self.left -= event == self.event
        if self.left == 0:
            raise StoppedError

    def updated(self, epoch: int, epochs: int, loss: float, images: int) -> None:
        self._see("updated")

    def evaluated(self) -> None:
        self._see("evaluated")

    def step_finished(self, step: int, figures: dict[str, Any]) -> None:
        self._see("step_finished")


def interrupted(folder: Path, recipe: Recipe, event: str, count: int, **options: Any) -> None:
    """Train until something has happened so many times, and stop there."""
    try:
        learn(folder, recipe, reporter=Interrupting(event, count), **options)
    except StoppedError:
        return
    raise AssertionError(f"{event} did not happen {count} times")


def command(*arguments: Any) -> tuple[int, str, str]:
    """Run `contseg` with these arguments in this process: exit code, standard output, standard error."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch("sys.argv", ["contseg", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def _in_double(kind: type[Method]) -> type[Method]:
    """A method in float64; a class of this module, so that ranks can be sent it."""

    def prepare(self, segmenter, step):
        kind.prepare(self, segmenter, step)
        segmenter.double()

    name = f"Double{kind.__name__}"
    made = dataclass(frozen=True)(type(name, (kind,), {"prepare": prepare, "__module__": __name__}))
    globals()[name] = made
    return made


DOUBLES = {name: _in_double(kind) for name, kind in METHODS.items()}
RELEASED_DOUBLES = {name: _in_double(kind) for name, kind in RELEASED.items()}


def in_double(method: Method) -> Method:
    """The same method in float64."""
    kind = (RELEASED_DOUBLES if method.variant == "released" else DOUBLES)[method.name]
    kind = fused(kind) if isinstance(method, EWF) else kind
    return kind(**{field.name: getattr(method, field.name) for field in fields(method) if field.init})


@dataclass(frozen=True)
class Guessing(MiB):
    """Ends every step with a classifier drawn at random, so that predictions hold every class after little training."""

    def after_step(self, context):
        generator = torch.Generator().manual_seed(context.step.index)
        for parameter in context.student.classifier.parameters():
            parameter.data.normal_(generator=generator)

"""`contseg evaluate`."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from rich.table import Table

from contseg.cli.console import console, percent, remark_lines, scan_progress
from contseg.cli.plugins import with_plugins
from contseg.data.classes import ClassTable
from contseg.data.pipelines.augment import evaluation_pipeline
from contseg.engine.devices import workers_of
from contseg.engine.loading import Batches, evaluation_draws
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference
from contseg.evaluation.metrics import step_figures
from contseg.evaluation.predict import evaluate
from contseg.evaluation.remarks import step_remarks
from contseg.interop.pretrained import is_pretrained, open_segmenter
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_scenario
from contseg.recipes.read import read_recipe, read_run
from contseg.recipes.recipe import Recipe
from contseg.scenarios.plan import plan_warnings
from contseg.scenarios.scenario import Scenario


def run_evaluation(
    folder: Path,
    step: int | None,
    data: Path | None,
    overrides: list[str],
    source: str | None = None,
    plugins: Sequence[str] = (),
) -> None:
    """Measure a step's segmenter on the step's test set, or a segmenter (folder or file) on a recipe's; print IoU per class.

    Args:
        overrides: of the recipe's `evaluation`; the rest of a run is what it is. Of any key where `source` is given.
        source: the recipe, for a segmenter that is no run.
        plugins: further ones of the recipe.

    Raises:
        ContsegError: no such run, step or segmenter, an override of something else, a finished step without its figures, or
            a dataset with other classes.
    """
    values = with_plugins([*overrides, *([f"data.path={str(data)!r}"] if data else [])], list(plugins))
    if folder.is_file() or is_pretrained(folder):
        if source is None:
            raise ContsegError(f"{folder}: holds a segmenter and no run; name a recipe for its test set with --recipe")
        if step is not None:
            raise ContsegError("--step: applies to runs; the step of a segmenter follows from its classes")
        segmenter, classes = open_segmenter(folder)
        recipe = read_recipe(source, values)
        scenario = read_scenario(recipe)
        measure(folder, segmenter, classes, recipe, scenario, step_knowing(classes, scenario, folder))
        return
    if source is not None:
        raise ContsegError(f"--recipe: {folder} is a run and has a recipe of its own; leave it out")
    for override in overrides:
        if not override.startswith(("evaluation.", "evaluation=")):
            raise ContsegError(
                f"override '{override}': a run can be measured otherwise (evaluation.KEY=VALUE), nothing else"
            )
    run = Run(folder).require()
    recipe = read_run(run.folder / "recipe.yaml", values)
    scenario = read_scenario(recipe)
    finished = len(run.confusions())
    index = finished - 1 if step is None else step
    if not 0 <= index < finished:
        raise ContsegError(f"--step: {folder} has finished {finished} steps (0 to {finished - 1}); there is no step {index}")
    segmenter, classes = load_segmenter(run.segmenter_path(index))
    require_same_classes(classes, scenario, index, run.segmenter_path(index))
    measure(folder, segmenter, classes, recipe, scenario, index)


def read_scenario(recipe: Recipe) -> Scenario:
    """The scenario of a recipe, with a bar while masks are scanned; prints what should be known of it."""
    with scan_progress() as progress:
        scenario = make_scenario(recipe, progress)
    for text in plan_warnings(scenario):
        console.print(f"note: {text}", soft_wrap=True, highlight=False, markup=False)
    return scenario


def require_same_classes(classes: ClassTable, scenario: Scenario, index: int, path: Path) -> None:
    """Raise ContsegError if the classes of a segmenter are not those of a step, by name and in order."""
    wanted = scenario[index].table.names
    for place, (own, other) in enumerate(zip_longest(classes.names, wanted)):
        if own != other:
            known, found = (f"'{name}'" if name is not None else "nothing" for name in (own, other))
            raise ContsegError(
                f"{scenario.dataset.root}: class {place} of step {index} is {found}, and the segmenter ({path}) knows it as"
                f" {known}; list the classes as the run did: {', '.join(classes.names)}"
            )


def step_knowing(classes: ClassTable, scenario: Scenario, folder: Path) -> int:
    """The step after which exactly these classes are known, in this order; of several, the last.

    Raises:
        ContsegError: there is none.
    """
    found = [step.index for step in scenario if step.table.names == classes.names]
    if not found:
        counts = ", ".join(str(step.seen_count) for step in scenario)
        last = scenario[-1].table.names
        raise ContsegError(
            f"{folder}: knows {len(classes)} classes ({', '.join(classes.names)}), and no step of the recipe knows the same"
            f" in the same order; its steps know {counts} of {', '.join(last)}; set scenario.split and scenario.order"
        )
    return found[-1]


def measure(folder: Path, segmenter: Segmenter, classes: ClassTable, recipe: Recipe, scenario: Scenario, index: int) -> None:
    """Print what a segmenter reaches on the test set of a step."""
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.training.accelerator != "cpu" else "cpu")
    segmenter.to(device)
    pipeline, test = evaluation_pipeline(recipe.data.test_crop), scenario[index].test
    draws = evaluation_draws(len(test), recipe.training.batch, pipeline)
    workers = workers_of(recipe.training)
    batches = Batches(test, pipeline, draws, seed=0, step=index, device=device, workers=workers)
    inference = Inference.of(recipe.evaluation, scenario.dataset.mirror, classes.ids)
    with scan_progress("testing") as progress:
        done = iter(range(1, len(batches) + 1))
        confusion = evaluate(segmenter, batches, len(classes), lambda: progress(next(done), len(batches)), inference)
    counts, annotated = confusion.cpu().numpy(), scenario[index].test.annotated
    figures = step_figures(counts, scenario.groups, scenario.has_background)
    notes = step_remarks(counts, scenario.groups, scenario.has_background, classes.names, annotated)
    table = Table(title=f"{folder}, step {index}: {len(test)} images")
    table.add_column("class")
    table.add_column("from step", justify="right")
    table.add_column("IoU %", justify="right")
    for name, group, iou in zip(classes.names, scenario.groups, figures["iou"], strict=False):
        table.add_row(name, str(group), percent(None if iou is None else 100 * iou))
    console.print(table)
    shown = ("old", "new", "all", "all_with_background", "accuracy")
    console.print(
        "  ".join(f"{key} {percent(None if figures[key] is None else 100 * figures[key])}" for key in shown), highlight=False
    )
    for line in remark_lines(notes, ["background", *shown]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)

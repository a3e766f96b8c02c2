"""`contseg evaluate`."""

from pathlib import Path

import torch
from rich.table import Table

from contseg.cli.console import console, percent, scan_progress
from contseg.data.augment import evaluation_pipeline
from contseg.engine.loading import Batches, evaluation_draws
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference
from contseg.evaluation.metrics import step_figures
from contseg.evaluation.predict import evaluate
from contseg.interop.segmenter_file import load_segmenter
from contseg.recipes.build import make_scenario
from contseg.recipes.read import read_recipe


def run_evaluation(folder: Path, step: int | None, data: Path | None, overrides: list[str]) -> None:
    """Measure a step's segmenter on the step's test set and print IoU per class.

    Args:
        overrides: of the recipe's `evaluation`; the rest of a run is what it is.

    Raises:
        ContsegError: no such run or step, or an override of something else.
    """
    for override in overrides:
        if not override.startswith(("evaluation.", "evaluation=")):
            raise ContsegError(
                f"override '{override}': a run can be measured otherwise (evaluation.KEY=VALUE), nothing else"
            )
    run = Run(folder).require()
    recipe = read_recipe(run.folder / "recipe.yaml", [*overrides, *([f"data.path={str(data)!r}"] if data else [])])
    with scan_progress() as progress:
        scenario = make_scenario(recipe, progress)
    finished = len(run.confusions())
    index = finished - 1 if step is None else step
    if not 0 <= index < finished:
        raise ContsegError(f"--step: {folder} has finished {finished} steps (0 to {finished - 1}); there is no step {index}")
    segmenter, classes = load_segmenter(run.segmenter_path(index))
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.training.accelerator != "cpu" else "cpu")
    segmenter.to(device)
    pipeline, test = evaluation_pipeline(recipe.data.test_crop), scenario[index].test
    draws = evaluation_draws(len(test), recipe.training.batch, pipeline)
    batches = Batches(test, pipeline, draws, seed=0, step=index, device=device, workers=recipe.training.workers)
    inference = Inference.of(recipe.evaluation, scenario.dataset.mirror, classes.ids)
    with scan_progress("testing") as progress:
        done = iter(range(1, len(batches) + 1))
        confusion = evaluate(segmenter, batches, len(classes), lambda: progress(next(done), len(batches)), inference)
    figures = step_figures(confusion.cpu().numpy(), scenario.groups, scenario.has_background)
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

"""`contseg evaluate`."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.table import Table

from contseg.cli.console import console, progress_bar
from contseg.cli.evaluate_folder import RESULT_MARK, evaluate_folder, is_data_of_run, write_result
from contseg.cli.folder_options import FOLDER_KEYS
from contseg.cli.plugins import with_plugins
from contseg.data.classes import ClassTable, class_differences
from contseg.data.pipelines.augment import evaluation_pipeline
from contseg.engine.loading import evaluation_batches
from contseg.engine.measure import Counted, figures_of
from contseg.engine.run import Run
from contseg.errors import ContsegError, counted
from contseg.evaluation.confusion import IGNORED_WARNING
from contseg.evaluation.inference import Inference
from contseg.evaluation.panoptic import MEANS
from contseg.evaluation.predict import evaluate_domains
from contseg.evaluation.segments import SegmentCounter, measures_segments
from contseg.interop.adopted import is_foreign
from contseg.interop.pretrained import is_pretrained
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_scenario, require_undecided_counted
from contseg.recipes.models import open_model
from contseg.recipes.read import read_recipe, read_run
from contseg.recipes.recipe import Recipe
from contseg.replaceable import require_replaceable
from contseg.report.table import percent, remark_lines
from contseg.scenarios.plan import plan_warnings
from contseg.scenarios.scenario import Scenario

QUALITIES = ("PQ", "SQ", "RQ")


def run_evaluation(
    folder: Path,
    step: int | None,
    data: Path | None,
    overrides: list[str],
    source: str | None = None,
    plugins: Sequence[str] = (),
    result: Path | None = None,
) -> None:
    """Print the IoUs of a run's segmenter on a step's test set, of any segmenter (folder or file) on a recipe's, or of any
    model on a labelled folder.

    Args:
        overrides: for a run, keys of the recipe's `evaluation`, and `FOLDER_KEYS` with `data`; any key if `source` is set.
        source: the recipe, for a segmenter that is not in a run.
        plugins: to import in addition to those of the recipe.
        data: a labelled folder, or where the dataset of the run or recipe is now.
        result: a JSON file for the IoU of each class.

    Raises:
        ContsegError: the run, step or segmenter does not exist, an override is not allowed, the confusion matrix of a
            finished step is missing, or the dataset has other classes.
    """
    if data is not None and source is None and step is None and not is_data_of_run(folder, data, overrides):
        evaluate_folder(folder, data, overrides, result)
        return
    if result is not None:
        require_replaceable(result, RESULT_MARK, "--json")
    values = with_plugins([*overrides, *([f"data.path={str(data)!r}"] if data else [])], list(plugins))
    if folder.is_file() or is_pretrained(folder) or is_foreign(folder):
        if source is None:
            raise ContsegError(
                f"{folder}: contains a segmenter, not a run; set labelled images with --data, or the recipe of its test set"
                " with --recipe"
            )
        if step is not None:
            raise ContsegError("--step: applies to runs; the step of a segmenter follows from its classes")
        recipe = read_recipe(source, values)
        model = open_model(folder)
        scenario = read_scenario(recipe)
        index = step_with(model.classes, scenario, folder)
        measure(folder, model.segmenter, model.classes, recipe, scenario, index, result)
        return
    if source is not None:
        raise ContsegError(f"--recipe: {folder} is a run with its own recipe; remove the option")
    allowed = ("evaluation.", "evaluation=", *(f"{key}=" for key in FOLDER_KEYS if data is not None))
    for override in overrides:
        if not override.startswith(allowed):
            raise ContsegError(f"override '{override}': only evaluation.KEY=VALUE can be set for a run")
    run = Run(folder).require()
    recipe = read_run(run.folder / "recipe.yaml", values)
    scenario = read_scenario(recipe)
    finished = len(run.confusions())
    index = finished - 1 if step is None else step
    if not 0 <= index < finished:
        raise ContsegError(f"--step: {folder} has finished {finished} steps (0 to {finished - 1}); there is no step {index}")
    segmenter, classes = load_segmenter(run.segmenter_path(index))
    require_same_classes(classes, scenario, index, run.segmenter_path(index))
    measure(folder, segmenter, classes, recipe, scenario, index, result)


def read_scenario(recipe: Recipe) -> Scenario:
    """The scenario of a recipe, with a progress bar while masks are scanned; prints the warnings of its plan."""
    with progress_bar() as progress:
        scenario = make_scenario(recipe, progress)
    for text in plan_warnings(scenario):
        console.print(f"note: {text}", soft_wrap=True, highlight=False, markup=False)
    return scenario


def require_same_classes(classes: ClassTable, scenario: Scenario, index: int, path: Path) -> None:
    """Raise ContsegError unless a segmenter has the classes of a step, by name and in order."""
    wanted = scenario[index].table.names
    for place, own, found in class_differences(classes.names, wanted):
        raise ContsegError(
            f"{scenario.dataset.root}: class {place} of step {index} is {found}, but {own} in the segmenter ({path});"
            f" list the classes as the run did: {', '.join(classes.names)}"
        )


def step_with(classes: ClassTable, scenario: Scenario, folder: Path) -> int:
    """The last step that ends with exactly these classes, in this order.

    Raises:
        ContsegError: no step does.
    """
    found = [step.index for step in scenario if step.table.names == classes.names]
    if not found:
        counts = ", ".join(str(step.seen_count) for step in scenario)
        last = scenario[-1].table.names
        raise ContsegError(
            f"{folder}: has {len(classes)} classes ({', '.join(classes.names)}), and no step of the recipe ends with these"
            f" in this order; its steps end with {counts} of {', '.join(last)}; set scenario.split and scenario.order"
        )
    return found[-1]


def measure(
    folder: Path,
    segmenter: Segmenter,
    classes: ClassTable,
    recipe: Recipe,
    scenario: Scenario,
    index: int,
    result: Path | None,
) -> None:
    """Evaluate a segmenter on the test set of a step, and print the metrics; see `run_evaluation`."""
    require_undecided_counted(recipe)
    if recipe.evaluation.undecided == "ignored" and segmenter.options.leaves_undecided:
        console.print(f"note: {IGNORED_WARNING}", soft_wrap=True, highlight=False)
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.training.accelerator != "cpu" else "cpu")
    segmenter.to(device)
    step, pipeline = scenario[index], evaluation_pipeline(recipe.data.test_crop)
    batches = evaluation_batches(step.test, pipeline, recipe.training, device)
    inference = Inference.of(recipe.evaluation, scenario.dataset.mirror, classes.ids)
    with progress_bar("testing") as progress:
        done = iter(range(1, len(batches) + 1))
        counter = SegmentCounter(segmenter, classes, inference) if measures_segments(scenario.dataset, segmenter) else None
        matrices = evaluate_domains(
            segmenter, batches, len(classes), [""], lambda name: "",
            lambda: progress(next(done), len(batches)), inference, predict=counter.predict if counter else None,
        )  # fmt: skip
    figures = figures_of(scenario, step, Counted(matrices.cpu().numpy(), counter.counts if counter else None))
    panoptic = figures.get("panoptic")
    table = Table(title=f"{folder}, step {index}: {counted(len(step.test), 'image')}")
    table.add_column("class")
    table.add_column("from step", justify="right")
    table.add_column("IoU %", justify="right")
    for title in QUALITIES if panoptic else ():
        table.add_column(f"{title} %", justify="right")
    for place, (name, group, iou) in enumerate(zip(classes.names, scenario.groups, figures["iou"], strict=False)):
        more = [panoptic[title.lower()]["classes"][place] for title in QUALITIES] if panoptic else []
        table.add_row(name, str(group), *(percent(None if one is None else 100 * one) for one in (iou, *more)))
    console.print(table)
    shown = ("old", "new", "all", "all_with_background", "accuracy")
    console.print(
        "  ".join(f"{key} {percent(None if figures[key] is None else 100 * figures[key])}" for key in shown), highlight=False
    )
    for title in QUALITIES if panoptic else ():
        assert panoptic is not None
        means = panoptic[title.lower()]
        figure = {key: percent(None if means[key] is None else 100 * means[key]) for key in MEANS}
        console.print(f"{title}: {'  '.join(f'{key} {value}' for key, value in figure.items())}", highlight=False)
    for line in remark_lines(figures["notes"], ["background", *shown]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if result is not None:
        iou = dict(zip(classes.names, figures["iou"], strict=False))
        content = {"model": str(folder), "step": index, "iou": iou, "images": len(step.test)}
        write_result(result, content | ({"panoptic": panoptic | {"names": classes.names}} if panoptic else {}))

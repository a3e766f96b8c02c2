"""`contseg explain`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from contseg.cli.console import console, progress_bar
from contseg.cli.evaluate import read_scenario, require_same_classes
from contseg.cli.plugins import with_plugins
from contseg.data.pipelines.augment import evaluation_pipeline
from contseg.engine.run import EXPLAIN, Run
from contseg.errors import ContsegError, counted, did_you_mean
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.segmenter import Segmenter
from contseg.recipes.read import read_run
from contseg.recipes.recipe import Recipe
from contseg.replaceable import require_replaceable
from contseg.report.explain import Projection, Sample, explained, t_sne
from contseg.report.explain_page import MARK, write_explanation
from contseg.report.why import why
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step


def run_explanation(
    folder: Path,
    name: str,
    step: int | None = None,
    images: int = 100,
    projection: Projection = "pca",
    data: Path | None = None,
    out: Path | None = None,
    plugins: Sequence[str] = (),
) -> None:
    """Store what explains a class before and after a step in the folder of a run, and write a page about it.

    Args:
        name: of a class that is known after the step.
        step: a finished step; default: the last.
        images: number of test images whose regions are compared, drawn with seed 0.
        data: where the dataset of the run is now.
        out: the page; default: explain.html in the run.

    Raises:
        ContsegError: the folder contains no run, the step is not finished, there is no such class or no such dataset, t-SNE
            without scikit-learn, or `out` exists and is no such page.
    """
    if projection == "tsne":
        t_sne()
    run = Run(folder).require()
    out = out or run.folder / "explain.html"
    require_replaceable(out, MARK)
    finished = len(run.confusions())
    if not finished:
        raise ContsegError(f"{folder}: no step is finished yet, so there is nothing to explain")
    index = finished - 1 if step is None else step
    if not 0 <= index < finished:
        raise ContsegError(f"--step: {folder} has finished {finished} steps (0 to {finished - 1}); there is no step {index}")
    recipe = read_run(run.folder / "recipe.yaml", with_plugins([f"data.path={str(data)!r}"] if data else [], list(plugins)))
    segmenter, classes = load_segmenter(run.segmenter_path(index))
    if name not in classes.names:
        raise ContsegError(f"--class: no class '{name}' after step {index} of {folder}; {did_you_mean(name, classes.names)}")
    scenario = read_scenario(recipe)
    require_same_classes(classes, scenario, index, run.segmenter_path(index))
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.training.accelerator != "cpu" else "cpu")
    models = {"after": segmenter}
    if index:
        models["before"] = load_segmenter(run.segmenter_path(index - 1))[0]
    for one in models.values():
        one.to(device).eval()
    chosen = scenario[index]
    names = drawn(chosen, images)
    console.print(f"step {index}: comparing regions of {counted(len(names), 'test image')}", highlight=False)
    arrays = explained(
        models,
        classes.index_of(name),
        classes.names,
        {when: outputs(one) for when, one in models.items()},
        stored_samples(run),
        tested_samples(scenario, chosen, names, recipe),
        projection,
    )
    run.save_arrays(
        EXPLAIN,
        **arrays,
        **{"class": np.array(name), "step": np.array(index), "images": np.array(len(names))},
        classes=np.array(classes.names),
        colours=np.array(classes.colours, dtype=np.uint8),
        projection=np.array(projection),
    )
    for text in why(run.arrays(EXPLAIN))["sentences"]:
        console.print(text, highlight=False, soft_wrap=True)
    console.print(f"page: {write_explanation(run, out)}", soft_wrap=True)
    console.print(f"contseg report {folder} has it as a section, too", soft_wrap=True, highlight=False)


def outputs(segmenter: Segmenter) -> int:
    """The number of classes that a segmenter knows."""
    return sum(segmenter.widths) - int(segmenter.options.unknown)


def drawn(step: Step, count: int) -> list[str]:
    """At most so many names of a step's test images, drawn with seed 0."""
    places = np.random.default_rng(0).permutation(len(step.test))[:count]
    return [step.test.names[place] for place in places]


def stored_samples(run: Run) -> Iterator[Sample]:
    """The sample images of a run with their labels."""
    arrays = run.arrays("samples.npz")
    for number in range(len(arrays["names"])):
        yield arrays[f"image{number}"], arrays[f"truth{number}"]


def tested_samples(scenario: Scenario, step: Step, names: Sequence[str], recipe: Recipe) -> Iterator[Sample]:
    """Test images of a step, cut as in evaluation, with a progress bar."""
    pipeline = evaluation_pipeline(recipe.data.test_crop)
    with progress_bar("test images") as progress:
        for number, name in enumerate(names):
            image, mask = scenario.dataset.read(name)
            pixels, layers = pipeline(image, {"mask": mask}, np.random.default_rng(0))
            yield pixels.permute(1, 2, 0).contiguous().numpy(), step.test.labels(layers)
            progress(number + 1, len(names))

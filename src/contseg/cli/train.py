"""`contseg train`."""

from pathlib import Path

from contseg.cli.console import console, progress_bar, summary_table
from contseg.cli.progress import TerminalReporter
from contseg.data.cache import cache_folder
from contseg.engine.job import Job
from contseg.engine.ranks import joined_rank
from contseg.engine.recorded import require_same_data
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError
from contseg.recipes.build import keep_places, make_job, resumed_recipe, start_run
from contseg.recipes.choices import choices
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.report.comparison import comparability
from contseg.report.page import write_report
from contseg.scenarios.plan import make_plan


def run_training(
    source: str | None, overrides: list[str], out: Path | None, resume: Path | None, overwrite: bool, share: bool
) -> None:
    """Train a recipe in a new folder, or resume a run; print the results and write a report."""
    cache = cache_folder("steps") if share else None
    if resume:
        if out is not None or overwrite:
            given = "--out" if out is not None else "--overwrite"
            raise ContsegError(f"{given}: a resumed run stays in its own folder, {resume}; remove {given} or --resume")
        folder, run = resume, Run(resume).require()
        recipe = resumed_recipe(folder, read_recipe(source or folder / "recipe.yaml", overrides))
        job = prepared_job(recipe, folder, cache)
        require_same_data(run, make_plan(job.scenario))
        if not joined_rank():
            keep_places(run, recipe)
    else:
        if source is None:
            raise ContsegError("train: name a recipe (list them with: contseg recipes), or --resume RUN")
        recipe = read_recipe(source, overrides)
        folder = out or Path("runs") / recipe.name.replace("/", "-")
        if not joined_rank():
            Run(folder).refuse_if_taken(overwrite)
        job = prepared_job(recipe, folder, cache, new=True)  # checks everything before the folder changes
        make_plan(job.scenario)
        if not joined_rank():
            start_run(recipe, folder, overwrite)
    for line in [] if joined_rank() else choices(recipe, resumed=resume is not None):
        console.print(line, soft_wrap=True, highlight=False)
    for change in [] if joined_rank() else comparability(recipe):
        console.print(f"not comparable with published numbers: {change}", soft_wrap=True, highlight=False)
    summary = train(job, TerminalReporter())
    if joined_rank():
        return
    console.print(summary_table({recipe.method["name"]: summary}))
    console.print(f"run: {folder}\nreport: {write_report([folder], folder / 'report.html')}", soft_wrap=True)


def prepared_job(recipe: Recipe, folder: Path, cache: Path | None, *, new: bool = False) -> Job:
    """A job, with a progress bar while masks are scanned; see `make_job`."""
    with progress_bar() as progress:
        return make_job(recipe, folder, progress=progress, cache=cache, new=new)

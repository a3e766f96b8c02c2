"""`contseg train`."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

from contseg.cli.console import console, progress_bar, summary_table
from contseg.cli.json_log import json_log
from contseg.cli.progress import TerminalReporter
from contseg.data.cache import cache_folder
from contseg.engine.inputs import Inputs, require_unchanged
from contseg.engine.job import Job
from contseg.engine.overwrite import discard, require_free
from contseg.engine.ranks import joined_rank, owned_by_rank_0
from contseg.engine.run import Run
from contseg.engine.train import resume_command, train
from contseg.errors import ContsegError
from contseg.interruption import Interrupted
from contseg.recipes.build import keep_recipe, make_job, resumed_recipe, start_run
from contseg.recipes.choices import choices
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.report.comparison import comparability
from contseg.report.log import JsonLog, TextLog
from contseg.scenarios.plan import make_plan


def run_training(
    source: str | None,
    overrides: list[str],
    out: Path | None,
    resume: Path | None,
    overwrite: bool,
    share: bool,
    accept_changes: bool = False,
    log: Literal["text", "json"] = "text",
) -> None:
    """Train a recipe in a new folder, or resume a run; print the results and write a report.

    Args:
        log: what is printed: text for readers, or a JSON object per line.
    """
    opened: AbstractContextManager[TextLog | JsonLog] = json_log() if log == "json" else nullcontext(TerminalReporter())
    with opened as reporter:
        _run_training(source, overrides, out, resume, overwrite, share, accept_changes, reporter)


def _run_training(
    source: str | None,
    overrides: list[str],
    out: Path | None,
    resume: Path | None,
    overwrite: bool,
    share: bool,
    accept_changes: bool,
    log: TextLog | JsonLog,
) -> None:
    if accept_changes and not resume:
        raise ContsegError("--accept-changes: is for a run that is resumed; add --resume RUN, or remove it")
    if resume and (out is not None or overwrite):
        given = "--out" if out is not None else "--overwrite"
        raise ContsegError(f"{given}: a resumed run stays in its own folder, {resume}; remove {given} or --resume")
    if resume:
        folder, begun = Run(resume).require().folder, True
        recipe = read_recipe(source or folder / "recipe.yaml", overrides)
    else:
        if source is None:
            raise ContsegError("train: name a recipe (list them with: contseg recipes), or --resume RUN")
        recipe, begun = read_recipe(source, overrides), False
        folder = out or Path("runs") / recipe.name.replace("/", "-")
        if not joined_rank():
            require_free(folder, overwrite)
    cache = cache_folder("steps") if share else None
    try:
        with owned_by_rank_0(folder):
            if resume:
                recipe, job = _resumed(recipe, folder, cache, accept_changes, log)
            else:
                job = _begun(recipe, folder, cache, overwrite)
                begun = True
            _train(job, recipe, log, resumed=resume is not None, accept_changes=accept_changes)
    except Interrupted as stop:
        stop.resume = resume_command(folder) if begun else ""
        raise
    except Exception:  # whatever it is; raised again
        if begun and not resume and not joined_rank():
            discard(folder)  # so that the corrected command can use the folder
        raise


def _resumed(
    recipe: Recipe, folder: Path, cache: Path | None, accept_changes: bool, log: TextLog | JsonLog
) -> tuple[Recipe, Job]:
    """The recipe and the job with which a run is resumed, after a comparison with its start."""
    run = Run(folder)
    recipe = resumed_recipe(folder, recipe, accept_changes=accept_changes)
    job = prepared_job(recipe, folder, cache)
    require_unchanged(run, Inputs.of(job, make_plan(job.scenario)), accept_changes)
    if not joined_rank() and (note := keep_recipe(run, recipe)):
        log.message(note)
    return recipe, job


def _begun(recipe: Recipe, folder: Path, cache: Path | None, overwrite: bool) -> Job:
    """The job of a new run, whose folder is created after everything is checked."""
    job = prepared_job(recipe, folder, cache, new=True)
    make_plan(job.scenario)
    if not joined_rank():
        start_run(recipe, folder, overwrite)
    return job


def _train(job: Job, recipe: Recipe, log: TextLog | JsonLog, *, resumed: bool, accept_changes: bool) -> None:
    """Train; rank 0 prints remarks, the results, and the place of the report."""
    for line in [] if joined_rank() else choices(recipe, resumed=resumed):
        log.message(line)
    for change in [] if joined_rank() else comparability(recipe):
        log.message(f"not comparable with published numbers: {change}")
    summary = train(job, log, accept_changes=accept_changes)
    if joined_rank():
        return
    console.print(summary_table({recipe.method["name"]: summary}))
    from contseg.report.page import write_report  # with the library that draws, half a second

    report = write_report([job.folder], job.folder / "report.html")
    console.print(f"run: {job.folder}\nreport: {report}", soft_wrap=True)
    if isinstance(log, JsonLog):
        log.add("finished", run=str(job.folder), report=str(report), metrics=summary)


def prepared_job(recipe: Recipe, folder: Path, cache: Path | None, *, new: bool = False) -> Job:
    """A job, with a progress bar while masks are scanned; see `make_job`."""
    with progress_bar() as progress:
        return make_job(recipe, folder, progress=progress, cache=cache, new=new)

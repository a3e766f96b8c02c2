"""`contseg demo`: several methods on the same steps, on the land of the Earth or on handwritten digits."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contseg.atomic import write_text
from contseg.children import end, last_line, start
from contseg.cli.console import console, progress_bar, summary_table
from contseg.cli.demo_earth import draw_earth
from contseg.cli.progress import TerminalReporter
from contseg.cli.train import prepared_job
from contseg.engine.cache import delete_results
from contseg.engine.overwrite import discard, require_free
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError, did_you_mean
from contseg.interruption import Interrupted
from contseg.lock import Lock, held
from contseg.manifest import Manifest
from contseg.methods.registry import METHODS
from contseg.recipes.build import require_kept, resumed_recipe, start_run
from contseg.recipes.read import read_recipe, to_yaml
from contseg.recipes.recipe import Recipe
from contseg.replaceable import require_replaceable
from contseg.report.log import numbered
from contseg.report.page import MARK, write_report
from contseg.scenarios.plan import make_plan

DEMOS = {"globe": "4-1", "digits": "5-1"}
"""Dataset to split, as in the names of its recipes."""
METHODS_OF = {"globe": ("finetune", "mib", "gaussian"), "digits": ("finetune", "mib")}
OTHER_OPTIONS = "repeat the options of the demo, choose another folder with --out, or begin anew with --fresh"
SUMMARY_KEYS = ("old", "new", "all", "average", "forgetting", "seconds")


def run_demo(
    dataset: str,
    methods: list[str],
    fresh: bool,
    out: Path | None,
    overrides: list[str],
    accept_changes: bool = False,
) -> None:
    """Train the methods and the joint upper bound, print one table, write `summary.json` and `report.html`.

    The joint run shares nothing with the others and trains in parallel in its own process. Without `fresh`, an
    interrupted demo is resumed, and the results of a finished one are printed again.

    Args:
        dataset: `globe` or `digits`.
        methods: default: those of `METHODS_OF`.
        accept_changes: resume runs although data or code changed since they began, which marks them.

    Raises:
        ContsegError: the dataset or a method is unknown, the demo in the folder has other options, or another demo is
            running there.
        Interrupted: a signal ended the demo; all runs are saved.
    """
    if dataset not in DEMOS:
        raise ContsegError(f"demo: no demo is named '{dataset}'; {did_you_mean(dataset, list(DEMOS))}")
    methods = methods or list(METHODS_OF[dataset])
    for name in methods:
        if name != "joint" and name not in METHODS:
            raise ContsegError(f"--methods: unknown method '{name}'; {did_you_mean(name, [*METHODS, 'joint'])}")
    folder = out or (next_folder() if fresh else Path("runs") / "demo")
    command = ["contseg", "demo", dataset, "--methods", ",".join(methods), "--out", str(folder), *overrides]
    command += ["--accept-changes"] * accept_changes
    try:
        with held(folder / "demo.lock", f"{folder}: a demo") as lock:
            _run(dataset, methods, fresh, folder, overrides, lock, accept_changes)
    except Interrupted as stop:
        stop.resume = shlex.join(command)
        raise


def _run(
    dataset: str,
    methods: list[str],
    fresh: bool,
    folder: Path,
    overrides: list[str],
    lock: Lock,
    accept_changes: bool,
) -> None:
    learned = list(dict.fromkeys(name for name in methods if name != "joint"))
    recipes = {name: _checked(dataset, name, folder, overrides, fresh) for name in [*learned, "joint"]}
    require_replaceable(folder / "summary.json", f'"{SUMMARY_KEYS[0]}": ')
    require_replaceable(folder / "report.html", MARK)
    if fresh:
        delete_results(folder / "cache")
    for name, recipe in recipes.items():
        if fresh or not _is_begun(folder / name):
            start_run(recipe, folder / name, overwrite=fresh)
    try:
        _learn_all(dataset, recipes, folder, lock, accept_changes)
    except Exception:  # whatever it is; raised again
        for name in recipes:
            discard(folder / name)  # so that the corrected command can use the folder
        raise


def _learn_all(dataset: str, recipes: Mapping[str, Recipe], folder: Path, lock: Lock, accept_changes: bool) -> None:
    learned = [name for name in recipes if name != "joint"]
    with _in_parallel(recipes["joint"], folder / "joint", bool(learned), lock, accept_changes) as joint:
        summaries = {name: _learned(name, recipes[name], folder, accept_changes) for name in learned}
        summaries["joint"] = joint() or _learned("joint", recipes["joint"], folder, accept_changes)
    if dataset == "globe":
        draw_earth({name: Run(folder / name) for name in summaries})
    short = {name: {key: summary[key] for key in SUMMARY_KEYS} for name, summary in summaries.items()}
    write_text(folder / "summary.json", json.dumps(short, indent=1) + "\n")
    console.print(summary_table(summaries))
    page = write_report([folder / name for name in short], folder / "report.html")
    console.print(f"report: {page}", soft_wrap=True)


def next_folder() -> Path:
    """The first of runs/demo-1, runs/demo-2, ... that does not exist."""
    number = 1
    while (folder := Path("runs") / f"demo-{number}").exists():
        number += 1
    return folder


def _checked(dataset: str, name: str, folder: Path, overrides: list[str], fresh: bool) -> Recipe:
    """The recipe of a method, after a check of everything that its run needs; nothing is written or deleted."""
    recipe = read_recipe(f"{dataset}/joint" if name == "joint" else f"{dataset}/{name}_{DEMOS[dataset]}", overrides)
    run = Run(folder / name)
    if _is_begun(run.folder) and not fresh:
        return resumed_recipe(run.folder, recipe, OTHER_OPTIONS)
    require_free(run.folder, overwrite=fresh)
    job = prepared_job(recipe, run.folder, None, new=True)
    require_kept(recipe, run.folder)
    make_plan(job.scenario)
    return recipe


def _is_begun(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file()


def _learned(name: str, recipe: Recipe, folder: Path, accept_changes: bool) -> dict[str, Any]:
    """The summary of a run, which is trained if unfinished. Only the methods of the demo share step 0."""
    run = Run(folder / name)
    if summary := run.summary():
        return summary
    job = prepared_job(recipe, run.folder, folder / "cache")
    return train(job, TerminalReporter(name), accept_changes=accept_changes)


@contextmanager
def _in_parallel(recipe: Recipe, folder: Path, wanted: bool, lock: Lock, accept_changes: bool) -> Iterator[Any]:
    """Continue a run in a child process; yields a function that waits for its summary (None if not wanted).

    The child always ends with this process, see `contseg.children`.
    """
    run = Run(folder)
    if not wanted or run.summary():
        yield run.summary
        return
    run.write_text("recipe.yaml", to_yaml(recipe))
    command = [sys.executable, "-m", "contseg", "train", "--resume", str(folder), "--no-cache"]
    command += ["--accept-changes"] * accept_changes
    Manifest(folder).record(folder / "log.txt", grows=True)
    process = start(command, folder / "log.txt", lock)
    try:
        yield lambda: _waited(process, run, recipe.training.epochs_of(0))
    finally:
        end([process])


def _waited(process: subprocess.Popen, run: Run, epochs: int) -> dict[str, Any]:
    """The summary of a run that a child process trains, with a progress bar over its epochs."""
    with progress_bar(f"joint {numbered('step', 0, 1)}, epochs") as progress:
        while process.poll() is None:
            progress(sum(line["kind"] == "epoch" for line in run.metrics()), epochs)
            time.sleep(0.2)
    summary = run.summary()
    if process.returncode or summary is None:
        raise ContsegError(
            f"{run.folder}: the joint run stopped ({last_line(run.folder / 'log.txt')}); run the demo again to continue"
        )
    old, new, both = (f"{summary[key]:.1f}" if summary[key] is not None else "-" for key in ("old", "new", "all"))
    console.print(f"joint {numbered('step', 0, 1)}: old {old}  new {new}  all {both}", highlight=False)
    return summary

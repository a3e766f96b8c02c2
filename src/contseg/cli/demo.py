"""`contseg demo`: the same six steps by several methods, side by side."""

import json
import shutil
from pathlib import Path

from contseg.cli.console import console, summary_table
from contseg.cli.progress import TerminalReporter
from contseg.cli.train import prepared_job
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError, did_you_mean
from contseg.methods.registry import METHODS
from contseg.recipes.build import resumed_recipe, start_run
from contseg.recipes.read import read_recipe
from contseg.report.page import write_report

SUMMARY_KEYS = ("old", "new", "all", "average", "forgetting", "seconds")


def run_demo(methods: list[str], fresh: bool, out: Path | None, overrides: list[str]) -> None:
    """Train the methods and the joint upper bound, print one table, write `summary.json` and `report.html`.

    Without `fresh` a demo that was cut off goes on, and a finished one is shown again.
    """
    known = [name for name in METHODS if name != "joint"]
    for name in methods:
        if name != "joint" and name not in known:
            raise ContsegError(f"--methods: unknown method '{name}'; {did_you_mean(name, [*known, 'joint'])}")
    folder = out or (next_folder() if fresh else Path("runs") / "demo")
    wanted = [*dict.fromkeys(name for name in methods if name != "joint"), "joint"]
    if fresh:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    summaries = {name: _summary(name, folder, overrides, overwrite=fresh) for name in wanted}
    short = {name: {key: summary[key] for key in SUMMARY_KEYS} for name, summary in summaries.items()}
    (folder / "summary.json").write_text(json.dumps(short, indent=1) + "\n", encoding="utf-8")
    console.print(summary_table(short))
    page = write_report([folder / name for name in wanted], folder / "report.html")
    console.print(f"report: {page}", soft_wrap=True)


def next_folder() -> Path:
    """The first of runs/demo-1, runs/demo-2, ... that is not there yet."""
    number = 1
    while (folder := Path("runs") / f"demo-{number}").exists():
        number += 1
    return folder


def _summary(name: str, folder: Path, overrides: list[str], overwrite: bool) -> dict:
    recipe = read_recipe("digits/joint" if name == "joint" else f"digits/{name}_5-1", overrides)
    run = Run(folder / name)
    if (run.folder / "recipe.yaml").is_file() and not overwrite:
        recipe = resumed_recipe(run.folder, recipe)
        if summary := run.summary():
            return summary
    else:
        start_run(recipe, run.folder, overwrite)
    # the cache lies in the demo's own folder: step 0 is shared between its methods and with nothing else
    return train(prepared_job(recipe, run.folder, folder / "cache"), TerminalReporter(name))

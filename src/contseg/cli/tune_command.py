"""The command `contseg tune` and its options."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from contseg.cli.plugins import PluginOption

app = typer.Typer()


@app.command(epilog="Example: contseg tune mine.yaml --on seed:1 --space method.pod=0:0.1 --out new")
def tune(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="A recipe, and changes to all runs; or tune.yaml.", metavar="RECIPE|FILE [KEY=VALUE]..."),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="Search on this class order, other recipe, or KEY=VALUE; repeatable.", metavar="WORD"),
    ] = None,
    report_on: Annotated[
        list[str] | None,
        typer.Option("--report-on", help="Report on this, as in --on; default: the recipe itself.", metavar="WORD"),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option("--space", help="What is tuned: KEY=LOW:HIGH[:log] or KEY={a,b}; repeatable.", metavar="KEY=RANGE"),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, max=10000, help="Number of trials; default: 20.")] = None,
    round_: Annotated[
        int | None, typer.Option("--round", min=1, max=1000, help="Trials that are suggested together; default: 4.")
    ] = None,
    goal: Annotated[
        Literal["all", "old", "new"] | None, typer.Option(help="The mIoU that is searched for its maximum; default: all.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the report, a number or 0,1,2; default: 3.")] = None,
    search_seeds: Annotated[str | None, typer.Option(help="Seeds of each trial; default: 1.")] = None,
    sampler_seed: Annotated[int | None, typer.Option(min=0, max=10**9, help="Seed of the suggestions; default: 0.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the runs; default: that of tune.yaml.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Runs in parallel; default: one per GPU, or per core without GPUs.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm", help="Train as jobs of SLURM with options of sbatch, e.g. time=4:00:00.", metavar="KEY=VALUE"
        ),
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Continue runs whose recipe, data or code changed; marks them.")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Search hyper-parameters on one dataset or class order, and evaluate the best ones on another.

    Repeat the command to resume it.
    """
    from contseg.cli.sweep import Ways, seeds_or_count
    from contseg.cli.tune import described, run_tune

    given = {
        "on": on,
        "report_on": report_on,
        "space": space,
        "trials": trials,
        "round": round_,
        "goal": goal,
        "seeds": None if seeds is None else seeds_or_count(seeds),
        "search_seeds": None if search_seeds is None else seeds_or_count(search_seeds, "--search-seeds"),
        "sampler_seed": sampler_seed,
        "plugins": plugin,
    }
    found, folder = described(words or [], given, out)
    run_tune(found, folder, Ways(jobs=jobs, slurm=slurm or None, accept_changes=accept_changes))

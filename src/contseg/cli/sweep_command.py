"""The command `contseg sweep` and its options."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from contseg.cli.plugins import PluginOption
from contseg.errors import ContsegError

app = typer.Typer()


@app.command(epilog="Example: contseg sweep digits/mib_5-1 --seeds 3 --with joint --out runs/sweep")
def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Recipes, and changes to all of them; or sweep.yaml.", metavar="RECIPE...|FILE [KEY=VALUE]..."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the runs; default: that of sweep.yaml.")] = None,
    status: Annotated[
        Path | None, typer.Option("--status", help="Only show what is done, running, waiting and failed.", metavar="FOLDER")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Number of seeds, or seeds such as 0,1,2; default: 3.")] = None,
    orders: Annotated[
        str | None, typer.Option(help="Number of class orders, or orders such as own,seed:1; default: 1, the recipe's own.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", help="Values of a key, e.g. training.lr=0.1,0.01; repeatable.", metavar="KEY=VALUES"),
    ] = None,
    beside: Annotated[
        str | None, typer.Option("--with", help="Also train joint, finetune or both on the same network and data.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Runs in parallel; default: one per GPU, or per core without GPUs.")
    ] = None,
    on: Annotated[Literal["local", "slurm"], typer.Option("--on", help="This machine, or jobs of SLURM.")] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option("--slurm", help="Options of sbatch, e.g. time=4:00:00,gres=gpu:1; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace runs of other recipes in the folder.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Continue runs whose recipe, data or code changed; marks them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow more than 1000 runs.")] = False,
    plugin: PluginOption = None,
    settings: Annotated[list[str] | None, typer.Option("--set", hidden=True)] = None,
    workers: Annotated[int | None, typer.Option("--workers", hidden=True)] = None,
) -> None:
    """Train the product of recipes, varied values, seeds and class orders; tabulate mean and standard deviation.

    Repeat the command to resume it; several machines may share the folder.
    """
    from contseg.cli.sweep import Ways, described, kinds_of, orders_or_count, run_sweep, seeds_or_count, settings_of
    from contseg.cli.sweep_status import show_status

    if settings or workers is not None:
        old, new = ("--set", "--vary") if settings else ("--workers", "--jobs")
        raise ContsegError(f"{old}: is now named {new}; write {new}")
    if slurm and on == "local":
        raise ContsegError("--slurm: is for jobs of SLURM; add --on slurm, or remove it")
    if status is not None:
        show_status(status)
        return
    given = {
        "seeds": None if seeds is None else seeds_or_count(seeds),
        "orders": None if orders is None else orders_or_count(orders),
        "vary": settings_of(vary or []),
        "beside": None if beside is None else kinds_of(beside),
        "plugins": plugin,
    }
    found, folder = described(words or [], given, out)
    options = (slurm or []) if on == "slurm" else None
    ways = Ways(jobs=jobs, slurm=options, overwrite=overwrite, accept_changes=accept_changes, yes=yes)
    run_sweep(found, folder, ways)

"""Commands before a training: `plan`, `dry-run` and `cost`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from contseg.cli.arguments import DataOption, OverridesArgument, RecipeArgument, with_data
from contseg.cli.plugins import PluginOption, with_plugins
from contseg.errors import ContsegError

app = typer.Typer()


@app.command(epilog="Example: contseg plan voc/plop_15-1_overlapped --data VOC2012")
def plan(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Also print the pixels per class and step.")] = False,
    draw: Annotated[Path | None, typer.Option("--draw", help="Also draw the plan to a file (.png, .svg, .pdf).")] = None,
    plugin: PluginOption = None,
) -> None:
    """Print the images and classes of each step of a recipe.

    Also prints which published selection of images each step equals.
    """
    from contseg.cli.plan import print_plan

    print_plan(recipe, with_plugins(with_data(list(overrides or []), data), plugin), pixels, draw)


@app.command("dry-run", epilog="Example: contseg dry-run voc/plop_15-1_overlapped training.lr=0.1")
def dry_run(
    names: Annotated[str, typer.Argument(help="A recipe, a pattern such as 'voc/*', or all.", metavar="NAME|all")],
    overrides: OverridesArgument = None,
    processes: Annotated[int | None, typer.Option(min=1, max=1024, help="Recipes in parallel; default: 2.")] = None,
    full: Annotated[
        bool | None, typer.Option("--full/--quarter", help="Images of full size (default for one recipe), or of a quarter.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Check a recipe without its data.

    Runs two updates and one evaluation of steps 0 and 1 with the real network on synthetic images.
    """
    from contseg.cli.dry_run import run_dry_run

    run_dry_run(names, with_plugins(list(overrides or []), plugin), processes=processes, full=full)


@app.command(epilog="Example: contseg cost digits/plop_5-1 --device cpu")
def cost(
    words: Annotated[
        list[str],
        typer.Argument(help="Recipes or sweeps, and changes to all of them.", metavar="RECIPE|SWEEP... [KEY=VALUE]..."),
    ],
    data: DataOption = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Device of the probe; default: that of the recipe.")
    ] = None,
    throughput: Annotated[
        float | None,
        typer.Option(min=1e-6, max=1e9, help="Training images per second, in place of a probe.", metavar="IMAGES_PER_S"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Runs in parallel; default: one per GPU, or one.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Print what runs will cost: updates, parameters, memory, disk and hours.

    Trains a few updates on this machine; nothing is left. A sweep is its folder, or its sweep.yaml.
    """
    from contseg.cli.cost import run_cost

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    names = [word for word in words if word not in overrides]
    if not names:
        raise ContsegError("cost: name at least one recipe or sweep (list the packaged recipes with: contseg recipes)")
    run_cost(names, with_plugins(with_data(overrides, data), plugin), device, throughput, jobs)

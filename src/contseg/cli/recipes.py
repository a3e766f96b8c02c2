"""`contseg recipes`."""

from typing import Annotated

import typer

from contseg.cli.plugins import PluginOption, with_plugins

app = typer.Typer()


@app.callback(invoke_without_command=True, epilog="Example: contseg recipes --dataset voc --split 15-1")
def recipes(
    context: typer.Context,
    system: Annotated[str | None, typer.Option(help="Only recipes of a system, e.g. plop.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only recipes of a dataset, e.g. voc.")] = None,
    split: Annotated[str | None, typer.Option(help="Only recipes of a split, e.g. 15-1.")] = None,
    plugin: PluginOption = None,
) -> None:
    """List the packaged recipes with published numbers of the same protocol."""
    if context.invoked_subcommand is not None:
        return
    from contseg.cli.console import console
    from contseg.recipes.catalogue import catalogue

    entries = catalogue(system, dataset, split)
    rows = [("recipe", "published", "")]
    for entry in entries:
        published = [(row.shown + (" bg" if row.background == "yes" else ""), row.certainty) for row in entry.published]
        rows += [("" if number else entry.name, *row) for number, row in enumerate(published or [("", "")])]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, figures, kind in rows:
        console.print(f"{name:{widths[0]}} {figures:{widths[1]}} {kind}".rstrip(), highlight=False, soft_wrap=True)
    console.print(
        "\nold / new / all: mIoU in % of the classes of step 0, of later steps, of all;\nbg: background counted\n"
        f"{len(entries)} recipes. Show one with its sources: contseg recipes show NAME",
        highlight=False,
    )


@app.command(epilog="Example: contseg recipes show voc/plop_15-1_overlapped")
def show(
    name: Annotated[str, typer.Argument(help="A packaged recipe, or a YAML file.", metavar="NAME")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to the recipe.", metavar="[KEY=VALUE]...")] = None,
    plugin: PluginOption = None,
) -> None:
    """Print a recipe in full as YAML.

    Shows every value with its origin and reason, links, and published numbers.
    """
    from contseg.recipes.describe import describe

    print(describe(name, with_plugins(overrides or [], plugin)))

"""`contseg recipes`: what there is to train, and what exactly a name stands for."""

from typing import Annotated

import typer

from contseg.cli.plugins import PluginOption, with_plugins

app = typer.Typer(help="List the packaged recipes beside what was published; or show one in full.")


@app.callback(invoke_without_command=True)
def recipes(
    context: typer.Context,
    system: Annotated[str | None, typer.Option(help="Only of this system: plop, sdr, idrnet, mib ...")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only of this data set: voc, ade20k ...")] = None,
    split: Annotated[str | None, typer.Option(help="Only of this split: 15-1, offline ...")] = None,
    plugin: PluginOption = None,
) -> None:
    """List the packaged recipes, with what was published on the same protocol; `recipes show NAME` shows one in full."""
    if context.invoked_subcommand is not None:
        return
    from rich import box
    from rich.table import Table

    from contseg.cli.console import console
    from contseg.recipes.catalogue import catalogue

    entries = catalogue(system, dataset, split)
    table = Table(box=box.SIMPLE_HEAD, caption="old / new / all, mIoU in %; bg: background counted")
    for title in ("recipe", "published", "source"):
        table.add_column(title, no_wrap=title != "source", overflow="fold")
    for entry in entries:
        told = [row.told + (" bg" if row.background == "yes" else "") for row in entry.published] or [""]
        rows = zip(told, [f"{row.source} ({row.sure})" for row in entry.published] or [""], strict=True)
        for number, (figures, source) in enumerate(rows):
            table.add_row("" if number else entry.name, figures, source)
    console.print(table)
    console.print(f"{len(entries)} recipes; contseg recipes show NAME prints one in full", highlight=False)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A packaged recipe, or a YAML file.", metavar="NAME")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, such as training.lr=0.01.", metavar="[KEY=VALUE]...")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Print a recipe in full as YAML: every value, the part that it comes from, why, links, and what was published."""
    from contseg.recipes.describe import describe

    print(describe(name, with_plugins(overrides or [], plugin)))
